package agrentingtest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// hire is a hiring that a user has created with a client_idempotency_key.
type hire struct {
	fingerprint [sha256.Size]byte
	job         *job
}

// hireAgent creates a hiring of the agent in the path for a user. Two assumptions: the
// price goes into escrow at once, and the status is 201. The capability need not be in
// the list of the agent: workers report a mismatch as the reason of a failure.
func (s *Server) hireAgent(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	spec, key, f := hireSpec(body)
	if f != nil {
		return reply{}, f
	}
	provider := s.dir.find(x.r.PathValue("id"))
	if provider == nil || !x.who.sees(provider) {
		return reply{}, notFound("agent")
	}
	u := x.who.token.user
	fingerprint := sha256.Sum256(append([]byte(provider.id), encode(body)...))
	if known, ok := u.hires[key]; ok && key != "" {
		if known.fingerprint != fingerprint {
			return reply{}, fail(http.StatusConflict, CodeIdempotencyConflict,
				"client_idempotency_key was used with another request")
		}
		return reply{status: http.StatusOK, data: s.hired(x, known.job)}, nil
	}
	if provider.status != AgentActive {
		return reply{}, unavailable()
	}
	if u.account.available < spec.price {
		return reply{}, insufficientBalance()
	}
	j := s.dir.addJob(hiringFlow, x.who.party(), provider, spec, s.now())
	j.lock(s.dir, s.now())
	if key != "" {
		if u.hires == nil {
			u.hires = make(map[string]hire)
		}
		u.hires[key] = hire{fingerprint: fingerprint, job: j}
	}
	s.dir.catchUp(s.now())
	return reply{status: http.StatusCreated, data: s.hired(x, j)}, nil
}

// hireSpec reads the body of the official client. An older example has capability instead
// of capability_requested. A repository token is accepted but not kept.
func hireSpec(body fields) (spec jobSpec, key string, _ *failure) {
	v := validator{fields: body}
	capability := "capability_requested"
	if body[capability] == nil && body["capability"] != nil {
		capability = "capability"
	}
	spec = jobSpec{capability: v.text(capability, true, 255), input: v.text("task_description", true, maxMessage)}
	mode := v.text("delivery_mode", false, 50)
	if mode == "" {
		mode = "output"
	}
	if !slices.Contains([]string{"output", "push"}, mode) {
		v.complain("delivery_mode", "is invalid: must be output or push")
	}
	key = v.text("client_idempotency_key", false, 255)
	repo, note := v.text("repo_url", false, 2000), v.text("client_message", false, maxMessage)
	var taskInput map[string]any
	v.get("task_input", "an object", false, &taskInput)
	price, f := v.amount("price", true)
	if f := v.failure(); f != nil {
		return spec, "", f
	}
	spec.price = price
	spec.extra = map[string]any{
		"delivery_mode": mode, "task_input": taskInput, "repo_url": nil, "client_message": nil,
	}
	for name, value := range map[string]string{"repo_url": repo, "client_message": note} {
		if value != "" {
			spec.extra[name] = value
		}
	}
	return spec, key, f
}

func (s *Server) hired(x *exchange, j *job) map[string]any {
	p := j.provider.profile
	config := map[string]any{
		"agentDid": j.provider.did, "pricingModel": p.pricingModel, "basePrice": nil,
		"capabilities": p.capabilities, "hiringId": j.id,
	}
	if p.basePrice != "" {
		config["basePrice"] = p.basePrice
	}
	return map[string]any{"hiring": j.renderHiring(x.origin()), "config": config}
}

// renderHiring renders the members that the official client declares, and those that
// workers of the marketplace read.
func (j *job) renderHiring(origin string) map[string]any {
	last := j.attempt()
	messages := make([]map[string]any, len(j.messages))
	for i, m := range j.messages {
		messages[i] = m.renderFor(j)
	}
	artifacts := make([]map[string]any, len(j.artifacts))
	for i, a := range j.artifacts {
		artifacts[i] = a.renderArtifact(origin)
	}
	p := j.provider
	agent := map[string]any{
		"id": p.id, "did": p.did, "name": p.profile.name, "category": p.profile.category,
		"capabilities": p.profile.capabilities, "reputation_score": p.reputationScore(), "status": p.status,
	}
	if p.profile.basePrice != "" {
		agent["base_price"] = p.profile.basePrice
	}
	m := map[string]any{
		"id":                   j.id,
		"status":               j.status,
		"final":                final(j.status),
		"agent_id":             p.id,
		"agent_did":            p.did,
		"agent":                agent,
		"client_agent_id":      j.client.agentID(),
		"price":                j.spec.price,
		"capability_requested": j.spec.capability,
		"task_description":     j.spec.input,
		"pricing_model":        p.profile.pricingModel,
		"task_output":          j.output,
		"failed_reason":        nil,
		"messages":             messages,
		"artifacts":            artifacts,
		"dispatch_id":          last.id,
		"trace_attempt":        len(j.attempts),
		"started_at":           optionalTime(j.started),
		"completed_at":         nil,
		"failed_at":            nil,
		"deadline_at":          nil,
		"created_at":           timestamp(j.created),
		"updated_at":           timestamp(j.updated),
	}
	maps.Copy(m, j.spec.extra)
	if j.resultID != "" {
		m["result_id"], m["submission_id"] = j.resultID, j.resultID
	}
	if j.reason != "" {
		m["failed_reason"] = j.reason
	}
	switch j.status {
	case statusCompleted:
		m["completed_at"] = timestamp(j.ended)
	case statusFailed:
		m["failed_at"] = timestamp(j.ended)
	}
	return m
}

// hiringReply returns a response with a hiring, or the refusal.
func hiringReply(x *exchange, j *job, f *failure) (reply, *failure) {
	if f != nil {
		return reply{}, f
	}
	return reply{status: http.StatusOK, data: j.renderHiring(x.origin())}, nil
}

// listHirings uses the shape that the official client reads, which differs from that of
// the other lists: numbered pages, with the newest hiring first.
func (s *Server) listHirings(x *exchange) (reply, *failure) {
	q := x.r.URL.Query()
	limit, f := intParam(q, "limit", defaultPageSize, 1, maxPageSize)
	if f != nil {
		return reply{}, f
	}
	number, f := intParam(q, "page", 1, 1, 1<<31-1)
	if f != nil {
		return reply{}, f
	}
	status := q.Get("status")
	if status != "" && !slices.Contains(hiringFlow.statuses, status) {
		return reply{}, invalid("status", "is not a status of hirings")
	}
	jobs := s.dir.jobs.where(func(j *job) bool {
		return j.flow == hiringFlow && j.client.is(&x.who) && (status == "" || j.status == status)
	})
	slices.Reverse(jobs)
	pages := (len(jobs) + limit - 1) / limit
	shown := []map[string]any{}
	if number <= pages {
		for _, j := range jobs[(number-1)*limit : min(number*limit, len(jobs))] {
			shown = append(shown, j.renderHiring(x.origin()))
		}
	}
	return reply{status: http.StatusOK, data: map[string]any{
		"hirings": shown, "total": len(jobs), "page": number, "per_page": limit, "total_pages": pages,
	}}, nil
}

// listPendingHirings lists the hirings of the acting agent that have not ended. Workers
// expect the list in data itself, with the statuses paid, in_progress, and
// revision_requested. Reading the list does not change a status.
func (s *Server) listPendingHirings(x *exchange) (reply, *failure) {
	pending := []map[string]any{}
	for _, j := range s.dir.jobs.items {
		if j.flow == hiringFlow && j.provider == x.who.agent && slices.Contains(hiringAssigned, j.status) {
			pending = append(pending, j.renderHiring(x.origin()))
		}
	}
	return reply{status: http.StatusOK, data: pending}, nil
}

// getHiring returns a hiring to its user or to the hired agent.
func (s *Server) getHiring(x *exchange) (reply, *failure) {
	j, f := s.job(x, hiringFlow)
	return hiringReply(x, j, f)
}

// cancelHiring cancels a hiring for its user, who gets the price back.
func (s *Server) cancelHiring(x *exchange) (reply, *failure) {
	j, f := s.clientJob(x, hiringFlow)
	if f == nil {
		f = j.apply(s.dir, actionCancel, s.now())
	}
	return hiringReply(x, j, f)
}

// retryHiring assigns a failed hiring to its agent again. It keeps its ID and gets a new
// dispatch_id and trace_attempt.
func (s *Server) retryHiring(x *exchange) (reply, *failure) {
	f := checkReason(x.body)
	if f != nil {
		return reply{}, f
	}
	j, f := s.clientJob(x, hiringFlow)
	if f == nil {
		f = j.allows(actionRetry)
	}
	if f == nil && j.provider.status != AgentActive {
		f = unavailable()
	}
	if f == nil && j.client.account().available < j.spec.price {
		f = insufficientBalance()
	}
	if f == nil {
		j.lock(s.dir, s.now())
		f = j.apply(s.dir, actionRetry, s.now())
		s.dir.catchUp(s.now())
	}
	return hiringReply(x, j, f)
}

// reviseHiring sends a completed hiring back to its agent. The platform has the status
// revision_requested; the route is an assumption.
func (s *Server) reviseHiring(x *exchange) (reply, *failure) {
	f := checkReason(x.body)
	if f != nil {
		return reply{}, f
	}
	j, f := s.clientJob(x, hiringFlow)
	if f == nil {
		f = j.apply(s.dir, actionRevise, s.now())
		s.dir.catchUp(s.now())
	}
	return hiringReply(x, j, f)
}

func checkReason(raw []byte) *failure {
	body, f := decodeObject(raw)
	if f != nil {
		return f
	}
	v := validator{fields: body}
	v.text("reason", false, maxMessage)
	return v.failure()
}

// providerJob returns the hiring in the path if the actor is the hired agent. It refuses
// a body that names an earlier attempt, which is an assumption.
func (s *Server) providerJob(x *exchange, body fields) (*job, *failure) {
	v := validator{fields: body}
	dispatch := v.text("dispatch_id", false, 100)
	var attempt int
	numbered := v.get("trace_attempt", "a number", false, &attempt)
	if f := v.failure(); f != nil {
		return nil, f
	}
	j, f := s.job(x, hiringFlow)
	switch {
	case f != nil:
		return nil, f
	case x.who.agent != j.provider:
		return nil, forbidden("only the hired agent may do this")
	case dispatch != "" && dispatch != j.attempt().id:
		return nil, invalid("dispatch_id", "is not the current attempt")
	case numbered && attempt != len(j.attempts):
		return nil, invalid("trace_attempt", "is not the current attempt")
	}
	return j, nil
}

// submitResult completes a hiring. In the documentation, result has the result; workers
// send output. Clients read the ID of the result from any of the three members.
func (s *Server) submitResult(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	output := body["output"]
	if output == nil {
		output = body["result"]
	}
	if output == nil || string(output) == "null" {
		return reply{}, invalid("output", "can't be blank")
	}
	files, f := resultFiles(body)
	if f != nil {
		return reply{}, f
	}
	j, f := s.providerJob(x, body)
	if f == nil {
		f = j.allows(actionResult)
	}
	if f != nil {
		return reply{}, f
	}
	now := s.now()
	for _, file := range files {
		file.owner, file.job, file.created = x.who.party(), j, now
		j.artifacts = append(j.artifacts, s.dir.addDocument(file))
	}
	_ = j.complete(s.dir, output, now) // already checked
	return reply{status: http.StatusOK, data: map[string]any{
		"id": j.resultID, "result_id": j.resultID, "submission_id": j.resultID, "hiring_id": j.id, "status": j.status,
	}}, nil
}

// resultFiles reads the files of a result, which become artifacts. The platform does not
// publish their form. The names of the members are those of artifacts and documents.
func resultFiles(body fields) ([]document, *failure) {
	var files []struct {
		Name         string `json:"name"`
		Content      string `json:"content"`
		ContentType  string `json:"content_type"`
		ArtifactType string `json:"artifact_type"`
		Language     string `json:"language"`
	}
	raw := body["artifacts"]
	if raw == nil {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &files); err != nil {
		return nil, invalid("artifacts", "must be a list of objects")
	}
	var documents []document
	for i, file := range files {
		content, err := base64.StdEncoding.DecodeString(file.Content)
		if err != nil || file.Name == "" {
			return nil, invalid("artifacts", "item %d must have a name, and content in base64", i)
		}
		documents = append(documents, document{
			name: file.Name, contentType: file.ContentType, kind: file.ArtifactType, language: file.Language, content: content,
		})
	}
	return documents, nil
}

// reportFailure fails a hiring. The documentation has error and reason; workers send only
// reason. That the user gets the price back is an assumption.
func (s *Server) reportFailure(x *exchange) (reply, *failure) {
	body, f := decodeObject(x.body)
	if f != nil {
		return reply{}, f
	}
	v := validator{fields: body}
	reason, detail := v.text("reason", body["error"] == nil, maxMessage), v.text("error", false, maxMessage)
	if f := v.failure(); f != nil {
		return reply{}, f
	}
	if reason != "" && detail != "" {
		reason += ": " + detail
	}
	if reason == "" {
		reason = detail
	}
	j, f := s.providerJob(x, body)
	if f == nil {
		f = j.fail(s.dir, reason, s.now())
	}
	return hiringReply(x, j, f)
}
