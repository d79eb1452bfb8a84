package mcptest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// Chunk is a part of a result that an agent has emitted with task_emit_chunk, such as
// Chunk{Sequence: 1, Content: "Hello"}. Most programs only read Content and Final.
type Chunk struct {
	TaskID   string // or the ID of a hiring; in the server's spelling
	AgentID  string
	Sequence int // 1 for the first chunk of a task
	Content  string
	Final    bool // the agent has declared this the last chunk
	Time     time.Time
}

// The limits of the stored output of a task. The platform does not publish numbers.
const (
	maxChunks = 10_000
	maxBytes  = 16 << 20 // of the contents
)

// output has the chunks of the current attempt at a task.
type output struct {
	chunks []Chunk
	size   int  // total size of the contents of chunks, in bytes
	last   int  // the sequence number of the latest chunk
	final  bool // the final chunk was emitted
	ended  bool // the attempt has ended
}

// keep adds a chunk and drops the oldest ones beyond the limits, but never the new one.
func (o *output) keep(c Chunk) {
	o.last, o.final = c.Sequence, c.Final
	o.chunks = append(o.chunks, c)
	o.size += len(c.Content)
	for len(o.chunks) > maxChunks || o.size > maxBytes && len(o.chunks) > 1 {
		o.size -= len(o.chunks[0].Content)
		o.chunks[0] = Chunk{} // append may keep the array for a long time
		o.chunks = o.chunks[1:]
	}
}

// onChange drops the chunks of work that had ended and has begun again.
func (e *Endpoints) onChange(c agrentingtest.Change) {
	if c.PaymentID != "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	id := c.TaskID + c.HiringID // one of them is empty
	switch o := e.outputs[id]; {
	case o == nil:
	case !takesChunks(c.Status):
		o.ended = true
	case o.ended:
		delete(e.outputs, id)
	}
}

// takesChunks reports whether work with a status can still get chunks.
func takesChunks(status string) bool {
	return slices.Contains([]string{"pending", "paid", "queued", "in_progress", "revision_requested"}, status)
}

// Chunks returns the latest chunks of a task or hiring in the order of their arrival: at
// most 10,000, and at most 16 MiB in total. A single larger chunk is kept alone. A new
// attempt, such as a retry of a hiring, begins without chunks, and its first chunk has
// the sequence number 1.
//
// IDs are case-insensitive.
func (e *Endpoints) Chunks(taskID string) []Chunk {
	if w, ok := e.srv.Work(taskID); ok {
		taskID = w.ID
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if o := e.outputs[taskID]; o != nil {
		return slices.Clone(o.chunks)
	}
	return nil
}

// OnChunk calls f for each later chunk of task_emit_chunk, after [Endpoints.Chunks]
// returns it and before the tool returns. The calls have the order of the chunks and do
// not overlap. f may call all methods of e, but it must not emit a chunk, because that
// would wait for f.
//
// With package sockettest, you can forward the chunks to the clients that have joined
// task_stream:
//
//	endpoints.OnChunk(func(c mcptest.Chunk) { _ = sockets.Emit(c.TaskID, c.Content, "", nil) })
func (e *Endpoints) OnChunk(f func(Chunk)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = append(slices.Clip(e.listeners), f)
}

// pendingURI is the resource that lists the work of an agent.
const pendingURI = "hiring://pending"

// addAgentTools adds the tools and the resource of agents.
func (e *Endpoints) addAgentTools(s *mcp.Server) {
	addTool(e, s, &mcp.Tool{
		Name:        "submit_hiring_result",
		Description: "Submit the result of a hiring, which completes it.",
	}, submitHiringResult)
	addTool(e, s, &mcp.Tool{
		Name:        "add_hiring_message",
		Description: "Send a message or a question to the user. The first message begins the work.",
	}, addHiringMessage)
	addTool(e, s, &mcp.Tool{
		Name:        "report_hiring_failure",
		Description: "Report that a hiring cannot be completed.",
	}, reportHiringFailure)
	addTool(e, s, &mcp.Tool{
		Name:        "task_emit_chunk",
		Description: "Emit a piece of the result while a task or hiring is in progress.",
	}, emitChunk)
	s.AddResource(&mcp.Resource{
		URI: pendingURI, Name: "pending hirings", MIMEType: "application/json",
		Description: "What the agent has been hired for, and has not ended.",
	}, e.readPending)
}

// readPending returns the list of the REST route.
func (e *Endpoints) readPending(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	var pending json.RawMessage
	if err := e.newCall(req.Extra).ask(ctx, http.MethodGet, hirings+"/pending", nil, nil, &pending); err != nil {
		return nil, err
	}
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{
		{URI: pendingURI, MIMEType: "application/json", Text: string(pending)},
	}}, nil
}

type resultInput struct {
	HiringID string `json:"hiring_id"`
	resultBody
}

// resultBody is the request body of the REST route.
type resultBody struct {
	Output       any            `json:"output" jsonschema:"the result: text, or any JSON value"`
	Artifacts    []artifactFile `json:"artifacts,omitempty" jsonschema:"files of the result"`
	DispatchID   string         `json:"dispatch_id,omitempty" jsonschema:"refuse the result if this is not the current attempt"`
	TraceAttempt int            `json:"trace_attempt,omitempty" jsonschema:"the same, by the number of the attempt"`
}

type artifactFile struct {
	Name         string `json:"name"`
	Content      string `json:"content" jsonschema:"in base64"`
	ContentType  string `json:"content_type,omitempty" jsonschema:"such as text/markdown"`
	ArtifactType string `json:"artifact_type,omitempty"`
	Language     string `json:"language,omitempty"`
}

func submitHiringResult(ctx context.Context, c *call, in resultInput) (any, error) {
	return c.data(ctx, http.MethodPost, hiringPath(in.HiringID, "/result"), nil, in.resultBody)
}

type messageInput struct {
	HiringID string `json:"hiring_id"`
	Content  string `json:"content" jsonschema:"at most 5000 characters"`
}

func addHiringMessage(ctx context.Context, c *call, in messageInput) (any, error) {
	return c.data(ctx, http.MethodPost, hiringPath(in.HiringID, "/messages"), nil, map[string]any{"content": in.Content})
}

type failureInput struct {
	HiringID string `json:"hiring_id"`
	Reason   string `json:"reason" jsonschema:"timeout, capability_mismatch, agent_unresponsive, or other"`
	Error    string `json:"error,omitempty" jsonschema:"what happened"`
}

func reportHiringFailure(ctx context.Context, c *call, in failureInput) (any, error) {
	body := map[string]any{"reason": in.Reason}
	if in.Error != "" {
		body["error"] = in.Error
	}
	return c.data(ctx, http.MethodPost, hiringPath(in.HiringID, "/failure"), nil, body)
}

type chunkInput struct {
	TaskID string `json:"task_id" jsonschema:"the ID of a task or hiring"`
	Chunk  string `json:"chunk" jsonschema:"the next piece of the result"`
	Final  bool   `json:"final,omitempty" jsonschema:"true for the last piece"`
}

// emitChunk accepts chunks from the agent that does the work, until the work has ended.
func emitChunk(ctx context.Context, c *call, in chunkInput) (any, error) {
	var work struct {
		ID     string `json:"id"` // in the server's spelling
		Status string `json:"status"`
		Agent  string `json:"agent_id"`
	}
	err := c.ask(ctx, http.MethodGet, "/api/v1/tasks/"+url.PathEscape(in.TaskID), nil, nil, &work)
	if f, ok := errors.AsType[*refusal](err); ok && f.status == http.StatusNotFound {
		err = c.ask(ctx, http.MethodGet, hiringPath(in.TaskID, ""), nil, nil, &work)
	}
	switch {
	case err != nil:
		return nil, err
	case work.Agent != c.who.AgentID:
		return nil, &refusal{http.StatusForbidden, "FORBIDDEN", "only the agent that does the work may do this"}
	case !takesChunks(work.Status):
		return nil, invalid("a task or hiring that is %s takes no chunks", work.Status)
	}
	chunk, err := c.e.emit(Chunk{TaskID: work.ID, AgentID: c.who.AgentID, Content: in.Chunk, Final: in.Final})
	if err != nil {
		return nil, err
	}
	return map[string]any{"task_id": chunk.TaskID, "sequence": chunk.Sequence, "final": chunk.Final}, nil
}

// emit stores and announces a chunk, unless the final one was emitted before.
func (e *Endpoints) emit(chunk Chunk) (Chunk, error) {
	e.emitting.Lock()
	defer e.emitting.Unlock()
	e.mu.Lock()
	o, listeners := e.outputs[chunk.TaskID], e.listeners
	if o == nil {
		o = &output{}
		e.outputs[chunk.TaskID] = o
	}
	if o.final {
		e.mu.Unlock()
		return Chunk{}, invalid("the final chunk has been emitted")
	}
	chunk.Sequence, chunk.Time = o.last+1, time.Now()
	o.keep(chunk)
	e.mu.Unlock()
	for _, f := range listeners {
		f(chunk)
	}
	return chunk, nil
}
