package mcptest

import (
	"context"
	"net/http"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// protocolOfSSE is the protocol version for HTTP+SSE in the platform's MCP page.
const protocolOfSSE = "2024-11-05"

// Endpoints are the MCP endpoints of one server. All methods are safe for concurrent use.
type Endpoints struct {
	srv *agrentingtest.Server

	closing context.Context //nolint:containedctx // ends when the server begins to close

	recruiting chan struct{} // has a value while hire_swarm runs, to run one at a time
	emitting   sync.Mutex    // protects task_emit_chunk

	mu        sync.Mutex
	swarms    map[string]*swarm
	keyed     map[string]*swarm // by account and client_idempotency_key
	saved     map[string][]Team // by user ID
	listings  []Team
	github    map[string]githubToken // by account
	outputs   map[string]*output     // by ID of the task or hiring
	listeners []func(Chunk)
}

// Mount serves the MCP endpoints on a server until the server is closed. It panics if
// they are already mounted.
func Mount(srv *agrentingtest.Server) *Endpoints {
	closing, end := context.WithCancel(context.Background())
	e := &Endpoints{
		srv:        srv,
		closing:    closing,
		swarms:     make(map[string]*swarm),
		keyed:      make(map[string]*swarm),
		saved:      make(map[string][]Team),
		github:     make(map[string]githubToken),
		outputs:    make(map[string]*output),
		recruiting: make(chan struct{}, 1),
	}
	srv.OnChange(e.onChange)
	hirer := e.newServer(e.addHirerTools)
	srv.HandleUser("/mcp/hirer", e.admitted(mcp.NewStreamableHTTPHandler(
		func(*http.Request) *mcp.Server { return hirer },
		// The platform authenticates each request, independent of its Host.
		&mcp.StreamableHTTPOptions{DisableLocalhostProtection: true, SessionTimeout: SessionTimeout},
	)))
	srv.BeforeClose(func() {
		end() // closing a session waits for its requests
		for session := range hirer.Sessions() {
			_ = session.Close()
		}
	})
	users := newStreams(e.newServer(e.addHirerTools, protocolOfSSE), "/mcp/hirer/messages/")
	srv.HandleUser("GET /mcp/hirer/sse", http.HandlerFunc(users.open))
	srv.HandleUser("POST /mcp/hirer/messages/{session}", http.HandlerFunc(users.message))
	agents := newStreams(e.newServer(e.addAgentTools, protocolOfSSE), "/mcp/messages/")
	srv.HandleAgent("GET /mcp/sse", http.HandlerFunc(agents.open))
	srv.HandleAgent("POST /mcp/messages/{session}", http.HandlerFunc(agents.message))
	return e
}

// newServer returns an MCP server with tools. If versions is empty, it accepts every
// protocol version of the MCP library.
func (e *Endpoints) newServer(tools func(*mcp.Server), versions ...string) *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "agrenting", Version: "1.0.0"}, &mcp.ServerOptions{
		Capabilities:              &mcp.ServerCapabilities{},
		SupportedProtocolVersions: versions,
	})
	tools(s)
	return s
}

// admitted serves requests that the platform has authenticated. The MCP library binds an
// MCP session to the user ID that it gets here.
func (e *Endpoints) admitted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verify := func(context.Context, string, *http.Request) (*auth.TokenInfo, error) { return tokenInfo(r), nil }
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(e.closing, cancel)() //nolint:contextcheck // the server ends, too
		inner := r.Clone(ctx)
		inner.Header.Set("Authorization", "Bearer admitted") // replaces the header that had the credential
		bearer := auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{AllowMissingExpiration: true})
		bearer(hidden(next)).ServeHTTP(w, inner)
	})
}

// requestKey is the key under which the MCP library passes the HTTP request of a message
// to its tool.
const requestKey = "request"

func tokenInfo(r *http.Request) *auth.TokenInfo {
	return &auth.TokenInfo{UserID: owner(principalOf(r)), Extra: map[string]any{requestKey: r}}
}

// principalOf never fails, because every route requires the platform's authentication.
func principalOf(r *http.Request) agrentingtest.Principal {
	p, _ := agrentingtest.PrincipalFrom(r.Context())
	return p
}

// owner returns the owner of an MCP session. A user may select another agent in each
// message.
func owner(p agrentingtest.Principal) string {
	if p.Kind == agrentingtest.KindUserToken {
		return "user:" + p.UserID
	}
	return "agent:" + p.AgentID
}

// account returns the ID of the account that money and settings belong to.
func account(p agrentingtest.Principal) string {
	if p.UserID != "" {
		return "user:" + p.UserID
	}
	return "agent:" + p.AgentID
}
