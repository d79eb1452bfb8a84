package mcptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// refusal is an error of the platform in the form that tools return.
type refusal struct {
	status        int
	code, message string
}

// Error implements error.
func (f *refusal) Error() string { return fmt.Sprintf("%s (HTTP %d): %s", f.code, f.status, f.message) }

func notFound(what string) error {
	return &refusal{http.StatusNotFound, agrentingtest.CodeNotFound, what + " not found"}
}

func invalid(format string, args ...any) error {
	return &refusal{http.StatusUnprocessableEntity, agrentingtest.CodeValidation, fmt.Sprintf(format, args...)}
}

// refuse responds in the platform's envelope.
func refuse(w http.ResponseWriter, f *refusal) {
	body, err := json.Marshal(map[string]any{
		"data":   nil,
		"meta":   map[string]any{"version": "1.0", "timestamp": time.Now().UTC().Format(time.RFC3339Nano)},
		"errors": []map[string]any{{"code": f.code, "message": f.message}},
	})
	if err != nil {
		panic(err) // strings can always be encoded
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // the client may have left
}

// call is one call of a tool.
type call struct {
	e       *Endpoints
	request *http.Request // the request that had the message
	session *mcp.ServerSession
	token   any // the progress token, nil if none
	who     agrentingtest.Principal
}

// addTool adds a tool. Its result is the result of h, as structured content and as
// text. Errors become results with isError.
func addTool[In any](e *Endpoints, s *mcp.Server, t *mcp.Tool, h func(context.Context, *call, In) (any, error)) {
	mcp.AddTool(s, t, func(ctx context.Context, req *mcp.CallToolRequest, in In) (*mcp.CallToolResult, any, error) {
		c := e.newCall(req.Extra)
		c.session, c.token = req.Session, req.Params.GetProgressToken()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(c.request.Context(), cancel) //nolint:contextcheck // both contexts count
		defer stop()
		out, err := h(ctx, c, in)
		return nil, out, err
	})
}

func (e *Endpoints) newCall(extra *mcp.RequestExtra) *call {
	r, _ := extra.TokenInfo.Extra[requestKey].(*http.Request) // every transport sets it
	return &call{e: e, request: r, who: principalOf(r)}
}

// needs returns an error if the caller's token does not have the scope.
func (c *call) needs(scope string) error {
	if c.who.Allows(scope) {
		return nil
	}
	return &refusal{http.StatusForbidden, agrentingtest.CodeForbidden, "the token lacks the scope " + scope}
}

// needsUser returns an error for agents, and for users without the scope.
func (c *call) needsUser(scope string) error {
	if c.who.Kind != agrentingtest.KindUserToken {
		return &refusal{http.StatusForbidden, agrentingtest.CodeForbidden, "this tool is for users, not for agents"}
	}
	return c.needs(scope)
}

// credentials are the headers that identify the caller.
var credentials = []string{"Authorization", "X-Api-Key", "Api-Key", "X-Agent-Id"}

var errCut = errors.New("the connection to the platform was closed")

// recorder stores a response.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) { w.status = status }

// Write implements http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) { return w.body.Write(p) }

// send sends a request to a REST route of the server on behalf of the caller. It
// returns the response unless that is an error.
func (c *call) send(ctx context.Context, method, path string, query url.Values, body any) (_ *recorder, err error) {
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	target := c.e.srv.URL + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	// The context shows the server that this is part of the request.
	part, cancel := context.WithCancel(c.request.Context())
	defer cancel()
	stop := context.AfterFunc(ctx, cancel)
	defer stop()
	r, err := http.NewRequestWithContext(part, method, target, bytes.NewReader(content)) //nolint:contextcheck // both contexts count
	if err != nil {
		return nil, err
	}
	r.Host, r.RemoteAddr, r.TLS = c.request.Host, c.request.RemoteAddr, c.request.TLS
	for _, name := range credentials {
		if values := c.request.Header[name]; values != nil {
			r.Header[name] = values
		}
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	// A fault that cuts the connection panics, like handlers do.
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			err = errCut
		default:
			panic(p)
		}
	}()
	w := &recorder{header: make(http.Header)}
	c.e.srv.Handler().ServeHTTP(w, r)
	if w.status >= http.StatusMultipleChoices {
		return nil, refusalOf(w)
	}
	return w, nil
}

// refusalOf reads an error response. Because of faults, it may have any form.
func refusalOf(w *recorder) error {
	var envelope struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Field   string `json:"field"`
		} `json:"errors"`
	}
	f := &refusal{w.status, "HTTP_ERROR", http.StatusText(w.status)}
	if json.Unmarshal(w.body.Bytes(), &envelope) == nil && len(envelope.Errors) > 0 {
		first := envelope.Errors[0]
		f.code, f.message = first.Code, first.Message
		if first.Field != "" {
			f.message = first.Field + ": " + f.message
		}
	}
	return f
}

// ask is like send, and decodes the data of the response.
func (c *call) ask(ctx context.Context, method, path string, query url.Values, body, data any) error {
	w, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	envelope := struct {
		Data any `json:"data"`
	}{data}
	if err := json.Unmarshal(w.body.Bytes(), &envelope); err != nil {
		return fmt.Errorf("the response of %s %s is malformed: %w", method, path, err)
	}
	return nil
}

// data is like ask, and returns the data unchanged.
func (c *call) data(ctx context.Context, method, path string, query url.Values, body any) (any, error) {
	var data json.RawMessage
	err := c.ask(ctx, method, path, query, body, &data)
	return data, err
}

// progress reports the progress of a call if the client has asked for it.
func (c *call) progress(ctx context.Context, done, total int) {
	if c.token != nil {
		_ = c.session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ // the client may have left
			ProgressToken: c.token, Progress: float64(done), Total: float64(total),
		})
	}
}
