package interop_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

type (
	echoInput  struct{ Text string }
	echoOutput struct{ Text, Caller string }
)

// mcpServer echoes, and says who the MCP SDK takes the caller for. Its second
// tool has the server call the client back, outside of any request.
func (w *world) mcpServer() *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "echo", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "echo"},
		func(_ context.Context, req *mcp.CallToolRequest, in echoInput) (*mcp.CallToolResult, echoOutput, error) {
			out := echoOutput{Text: in.Text}
			if req.Extra != nil && req.Extra.TokenInfo != nil {
				out.Caller = req.Extra.TokenInfo.UserID
			}
			return nil, out, nil
		})
	mcp.AddTool(server, &mcp.Tool{Name: "call back"},
		func(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			// Not the request's context: the ping has to take the stream that the
			// client opened when it connected.
			return nil, nil, req.Session.Ping(w.t.Context(), nil) //nolint:contextcheck // as said
		})
	return server
}

// bearer is the MCP SDK's own middleware, with the platform as its verifier.
func (w *world) bearer(next http.Handler) http.Handler {
	verify := func(_ context.Context, token string, r *http.Request) (*auth.TokenInfo, error) {
		p, err := w.platform.Verify(http.Header{"Authorization": {"Bearer " + token}})
		if refused, ok := errors.AsType[*agrentingtest.RefusedError](err); ok {
			w.refuse()
			return nil, fmt.Errorf("%w: %s", auth.ErrInvalidToken, refused.Message)
		}
		if err != nil {
			return nil, err
		}
		w.saw(p, r)
		// The platform is asked each time: what it said holds for now.
		return &auth.TokenInfo{UserID: p.String(), Expiration: time.Now().Add(time.Minute)}, nil
	}
	return auth.RequireBearerToken(verify, nil)(next)
}

func mcpStreamable(w *world) contact {
	server := w.mcpServer()
	url := w.serve(w.bearer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)))
	client := w.client()
	return mcpContact(w, "agent:"+w.agent.ID, func() mcp.Transport {
		return &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: client.HTTPClient()}
	})
}

func mcpSSE(w *world) contact {
	server := w.mcpServer()
	url := w.serve(w.bearer(mcp.NewSSEHandler(func(*http.Request) *mcp.Server { return server }, nil)))
	client := w.client()
	return mcpContact(w, "", func() mcp.Transport { // the MCP SDK tells tools of their callers by the newer transport only
		return &mcp.SSEClientTransport{Endpoint: url, HTTPClient: client.HTTPClient()}
	})
}

// mcpContact calls a tool for each exchange, mostly in a session that lives as
// long as the campaign, and in a new one every tenth time.
func mcpContact(w *world, caller string, transport func() mcp.Transport) contact {
	connect := func(ctx context.Context) (*mcp.ClientSession, error) {
		return mcp.NewClient(&mcp.Implementation{Name: "interop", Version: "1"}, nil).Connect(ctx, transport(), nil)
	}
	call := func(ctx context.Context, s *mcp.ClientSession, text string) error {
		result, err := s.CallTool(ctx, &mcp.CallToolParams{Name: "echo", Arguments: map[string]any{"Text": text}})
		if err != nil {
			return err
		}
		out, _ := result.StructuredContent.(map[string]any)
		if out["Caller"] != caller {
			return fmt.Errorf("%w: the server takes the caller for %v", errWrongEcho, out["Caller"])
		}
		return echoed(text, fmt.Sprint(out["Text"]))
	}
	old, err := connect(w.t.Context())
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = old.Close() })
	return contact{
		exchange: func(ctx context.Context, n int) error {
			text := fmt.Sprint("message ", n)
			if n%10 != 0 {
				return call(ctx, old, text)
			}
			s, err := connect(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = s.Close() }()
			return call(ctx, s, text)
		},
		alive: func(ctx context.Context) error {
			result, err := old.CallTool(ctx, &mcp.CallToolParams{Name: "call back"})
			if err == nil && result.IsError {
				err = result.GetError()
			}
			return err
		},
	}
}

// The stream for messages from the server is opened again when it breaks, and by
// then its session has long ended: the one in use takes its place.
func TestMCPStreamReconnectsWithCurrentCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrenting.InPlace)
	c := mcpStreamable(w)
	require.NoError(t, c.alive(t.Context()))
	for range 2 {
		w.platform.RevokeSessions()
		before := w.opened("GET")
		w.cut()
		require.Eventually(t, func() bool { return w.opened("GET") > before }, 20*time.Second, 10*time.Millisecond)
		// The server may have let the stream in and not begun to use it.
		require.Eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			return c.alive(ctx) == nil
		}, 20*time.Second, 10*time.Millisecond, "a message from the server")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.Len(t, w.seen, 3, "sessions that the server let in")
}
