package mcptest

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// readOnly marks tools that do not change anything.
var readOnly = &mcp.ToolAnnotations{ReadOnlyHint: true}

// addHirerTools adds the tools for users.
func (e *Endpoints) addHirerTools(s *mcp.Server) {
	addTool(e, s, &mcp.Tool{
		Name: "list_agents", Annotations: readOnly,
		Description: "List agents for hire, with their capabilities, prices, and reputation.",
	}, listAgents)
	addTool(e, s, &mcp.Tool{
		Name:        "hire_agent",
		Description: "Hire an agent for one task. The price goes into escrow at once.",
	}, hireAgent)
	addTool(e, s, &mcp.Tool{
		Name: "get_hiring_status", Annotations: readOnly,
		Description: "Get a hiring: its status, messages, artifacts, and result.",
	}, getHiringStatus)
	addTool(e, s, &mcp.Tool{
		Name: "wait_for_hirings", Annotations: readOnly,
		Description: "Wait until all of the hirings have ended, or until the timeout.",
	}, waitForHirings)
	addTool(e, s, &mcp.Tool{
		Name:        "answer_hiring_question",
		Description: "Answer a question from the hired agent.",
	}, answerHiringQuestion)
	addTool(e, s, &mcp.Tool{
		Name:        "cancel_hiring",
		Description: "Cancel a hiring that has not ended. Its price is returned.",
	}, cancelHiring)
	addTool(e, s, &mcp.Tool{
		Name: "list_my_hirings", Annotations: readOnly,
		Description: "List your hirings, newest first.",
	}, listMyHirings)
	addTool(e, s, &mcp.Tool{
		Name: "check_balance", Annotations: readOnly,
		Description: "Get the available money, and the money in escrow.",
	}, checkBalance)
	addTool(e, s, &mcp.Tool{
		Name: "list_hiring_artifacts", Annotations: readOnly,
		Description: "List the files of a hiring's result.",
	}, listHiringArtifacts)
	addTool(e, s, &mcp.Tool{
		Name: "download_artifact", Annotations: readOnly,
		Description: "Get the content of an artifact.",
	}, downloadArtifact)
	e.addAccountTools(s)
	e.addTeamTools(s)
}

const hirings = "/api/v1/hirings"

func hiringPath(id, action string) string { return hirings + "/" + url.PathEscape(id) + action }

// query returns the query with the parameters that are not empty.
func query(pairs ...string) url.Values {
	q := make(url.Values)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// number returns "" for 0, which is the zero value of a missing argument.
func number(n float64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

type listAgentsInput struct {
	Capability    string  `json:"capability,omitempty" jsonschema:"only agents with this capability"`
	MinPrice      float64 `json:"min_price,omitempty" jsonschema:"in USD"`
	MaxPrice      float64 `json:"max_price,omitempty" jsonschema:"in USD"`
	MinReputation float64 `json:"min_reputation,omitempty" jsonschema:"from 0 to 5"`
	SortBy        string  `json:"sort_by,omitempty" jsonschema:"reputation or price"`
	Limit         int     `json:"limit,omitempty" jsonschema:"at most this many, 20 by default and 100 at most"`
}

func listAgents(ctx context.Context, c *call, in listAgentsInput) (any, error) {
	data, err := c.data(ctx, http.MethodGet, "/api/v1/agents/discover", query("capability", in.Capability,
		"min_price", number(in.MinPrice), "max_price", number(in.MaxPrice), "min_reputation", number(in.MinReputation),
		"sort_by", in.SortBy, "limit", number(float64(in.Limit))), nil)
	return map[string]any{"agents": data}, err
}

type hireInput struct {
	AgentDID string `json:"agent_did" jsonschema:"the DID or ID of the agent"`
	hireBody
}

// hireBody is the request body of the REST route.
type hireBody struct {
	Capability      string         `json:"capability_requested" jsonschema:"what the agent is to use, such as writing"`
	Task            string         `json:"task_description" jsonschema:"what is to be done, at most 5000 characters"`
	Price           string         `json:"price" jsonschema:"in USD, such as 8.50"`
	DeliveryMode    string         `json:"delivery_mode,omitempty" jsonschema:"output (the default) or push"`
	RepoURL         string         `json:"repo_url,omitempty" jsonschema:"the repository to push to"`
	RepoAccessToken string         `json:"repo_access_token,omitempty" jsonschema:"a token for the repository"`
	TaskInput       map[string]any `json:"task_input,omitempty" jsonschema:"further input, as the agent documents it"`
	ClientMessage   string         `json:"client_message,omitempty" jsonschema:"a note to the agent"`
	IdempotencyKey  string         `json:"client_idempotency_key,omitempty" jsonschema:"the same key with the same arguments hires only once"`
}

func hireAgent(ctx context.Context, c *call, in hireInput) (any, error) {
	return c.data(ctx, http.MethodPost, hirePath(in.AgentDID), nil, in.hireBody)
}

func hirePath(agent string) string { return "/api/v1/agents/" + url.PathEscape(agent) + "/hire" }

type hiringInput struct {
	HiringID string `json:"hiring_id"`
}

func getHiringStatus(ctx context.Context, c *call, in hiringInput) (any, error) {
	return c.data(ctx, http.MethodGet, hiringPath(in.HiringID, ""), nil, nil)
}

type waitInput struct {
	HiringIDs []string `json:"hiring_ids" jsonschema:"at most 50"`
	Timeout   float64  `json:"timeout_seconds,omitempty" jsonschema:"60 by default, and 600 at most"`
}

const (
	// pollInterval is how often wait_for_hirings reads a hiring.
	pollInterval   = 250 * time.Millisecond
	defaultTimeout = 60 * time.Second
	maxTimeout     = 600 * time.Second
	maxWaited      = 50
)

// waitForHirings polls the hirings that have not ended.
func waitForHirings(ctx context.Context, c *call, in waitInput) (any, error) {
	if n := len(in.HiringIDs); n == 0 || n > maxWaited {
		return nil, invalid("hiring_ids must name 1 to %d hirings", maxWaited)
	}
	timeout := time.Duration(in.Timeout * float64(time.Second))
	if in.Timeout == 0 {
		timeout = defaultTimeout
	}
	if timeout < 0 || timeout > maxTimeout {
		return nil, invalid("timeout_seconds must be from 0 to %.0f", maxTimeout.Seconds())
	}
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	states := make([]map[string]any, len(in.HiringIDs))
	ended := -1
	for over := false; ; {
		count, err := readHirings(ctx, c, in.HiringIDs, states)
		if err != nil {
			return nil, err
		}
		if count > ended {
			ended = count
			c.progress(ctx, ended, len(states))
		}
		if ended == len(states) || over {
			return map[string]any{"hirings": states, "all_ended": ended == len(states), "timed_out": ended < len(states)}, nil
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			over = true // after one last read
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readHirings reads the hirings that have not ended, and counts the others.
func readHirings(ctx context.Context, c *call, ids []string, states []map[string]any) (ended int, err error) {
	for i, id := range ids {
		if !final(states[i]) {
			states[i] = nil
			if err := c.ask(ctx, http.MethodGet, hiringPath(id, ""), nil, nil, &states[i]); err != nil {
				return 0, err
			}
		}
		if final(states[i]) {
			ended++
		}
	}
	return ended, nil
}

// final reports whether a hiring has ended.
func final(hiring map[string]any) bool {
	ended, _ := hiring["final"].(bool)
	return ended
}

type answerInput struct {
	HiringID string `json:"hiring_id"`
	Answer   string `json:"answer" jsonschema:"at most 5000 characters"`
}

func answerHiringQuestion(ctx context.Context, c *call, in answerInput) (any, error) {
	return c.data(ctx, http.MethodPost, hiringPath(in.HiringID, "/messages"), nil, map[string]any{"content": in.Answer})
}

func cancelHiring(ctx context.Context, c *call, in hiringInput) (any, error) {
	return c.data(ctx, http.MethodPost, hiringPath(in.HiringID, "/cancel"), nil, nil)
}

type listHiringsInput struct {
	Status string `json:"status,omitempty" jsonschema:"only hirings with this status, such as completed"`
	Limit  int    `json:"limit,omitempty" jsonschema:"hirings per page, 20 by default and 100 at most"`
	Page   int    `json:"page,omitempty" jsonschema:"1 by default"`
}

func listMyHirings(ctx context.Context, c *call, in listHiringsInput) (any, error) {
	return c.data(ctx, http.MethodGet, hirings, query("status", in.Status,
		"limit", number(float64(in.Limit)), "page", number(float64(in.Page))), nil)
}

func checkBalance(ctx context.Context, c *call, _ struct{}) (any, error) {
	return c.data(ctx, http.MethodGet, "/api/v1/ledger/balance", nil, nil)
}

// listHiringArtifacts also needs artifacts:read, which is the documented scope for
// it.
func listHiringArtifacts(ctx context.Context, c *call, in hiringInput) (any, error) {
	if err := c.needs("artifacts:read"); err != nil {
		return nil, err
	}
	var hiring struct {
		Artifacts any `json:"artifacts"`
	}
	err := c.ask(ctx, http.MethodGet, hiringPath(in.HiringID, ""), nil, nil, &hiring)
	return map[string]any{"hiring_id": in.HiringID, "artifacts": hiring.Artifacts}, err
}

type artifactInput struct {
	ArtifactID string `json:"artifact_id"`
}

func downloadArtifact(ctx context.Context, c *call, in artifactInput) (any, error) {
	w, err := c.send(ctx, http.MethodGet, "/api/v1/artifacts/"+url.PathEscape(in.ArtifactID)+"/download", nil, nil)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"artifact_id": in.ArtifactID, "content_type": w.header.Get("Content-Type"), "size_bytes": w.body.Len(),
		"encoding": "utf-8", "content": w.body.String(),
	}
	if !utf8.Valid(w.body.Bytes()) {
		out["encoding"], out["content"] = "base64", base64.StdEncoding.EncodeToString(w.body.Bytes())
	}
	return out, nil
}
