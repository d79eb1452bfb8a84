package agrenting

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/shield"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// maxAgentID bounds an agent id. Ids are UUIDs or DIDs (platform
// documentation, "Authentication" and "Agent Management"); a DID has no
// documented limit, this one is generous.
const maxAgentID = 512

// validateAgentID reports an id that cannot be sent as X-Agent-ID. It accepts
// UUIDs, DIDs and whatever else is visible ASCII, since the platform decides.
func validateAgentID(id string) error {
	const hint = "an agent id is a UUID or a DID such as did:agrenting:my-agent"
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty; %s", ErrInvalidAgentID, hint)
	case len(id) > maxAgentID:
		return fmt.Errorf("%w: it has %d bytes, more than %d; %s", ErrInvalidAgentID, len(id), maxAgentID, hint)
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }); i >= 0 {
		return fmt.Errorf("%w: white space, a control character, or a non-ASCII character at byte %d; %s",
			ErrInvalidAgentID, i, hint)
	}
	if secret.RedactPatterns(id) != id {
		return fmt.Errorf("%w: it looks like a credential; %s", ErrInvalidAgentID, hint)
	}
	// Two identities in one header would be read differently by different
	// servers.
	if strings.ContainsAny(id, ",;\"") {
		return fmt.Errorf("%w: it has a comma, a semicolon or a quote; %s", ErrInvalidAgentID, hint)
	}
	return nil
}

// agentHeader is a validated X-Agent-ID, ready to be put in a header map.
// Header maps share the slice, so it must not be written to.
type agentHeader struct {
	values []string
	err    error
}

// noAgent adds nothing.
var noAgent agentHeader

func newAgentHeader(id string) agentHeader {
	if err := validateAgentID(id); err != nil {
		return agentHeader{err: err}
	}
	return agentHeader{values: []string{id}}
}

// id is the agent's id, "" when there is none.
func (a agentHeader) id() string {
	if len(a.values) == 0 {
		return ""
	}
	return a.values[0]
}

// set reports whether an agent was named, be it wrongly.
func (a agentHeader) set() bool { return a.values != nil || a.err != nil }

// perCall is what a context tells the transport about one request. One key
// holds all of it, so that the hot path looks once.
type perCall struct {
	agent agentHeader
	trace *Trace // nil if the caller did not ask for one
	trip  *trip  // nil if nothing observes the request
	// readTo is how many bytes of a successful response are read as a part of the attempt;
	// 0 if the caller reads it. enough reports that a response is of use although it broke
	// off; nil if it never is.
	readTo int64
	enough func(part []byte) bool
}

// readAhead reads a successful response as a part of its attempt, for [Client.Do]. out is the
// request that was sent with gen.
func readAhead(p *perCall, out *http.Request, gen *generation, resp *http.Response) {
	if p.trace != nil { // a call of Do, or a request with a Trace
		shield.Body(out, gen.Value.cred.c, resp)
	}
	if p.readTo > 0 && resp.StatusCode >= 200 && resp.StatusCode < 300 {
		wire.ReadAhead(resp, p.readTo, p.enough)
	}
}

type perCallKey struct{}

// nothing is what a context without a perCall says.
var nothing = &perCall{}

func perCallFrom(ctx context.Context) *perCall {
	if p, ok := ctx.Value(perCallKey{}).(*perCall); ok {
		return p
	}
	return nothing
}

func (p perCall) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, perCallKey{}, &p)
}

// ContextWithAgent returns a context whose requests act as the given agent:
// they carry its id as X-Agent-ID. It overrides the client's default and
// [Client.As]; [CallAgent] and a header set on the request override it.
//
// An id that cannot be sent makes those requests fail with [ErrInvalidAgentID]
// before anything is sent.
func ContextWithAgent(ctx context.Context, agentID string) context.Context {
	p := *perCallFrom(ctx)
	p.agent = newAgentHeader(agentID)
	return p.in(ctx)
}

// AgentFromContext returns the agent that [ContextWithAgent] set, and whether
// it set one.
func AgentFromContext(ctx context.Context) (string, bool) {
	p := perCallFrom(ctx)
	return p.agent.id(), len(p.agent.values) > 0
}

// As returns a client that acts as the given agent by default: its requests
// carry X-Agent-ID. It shares credentials, connections and state with c, costs
// nothing to make, and is closed with c. A user who owns several agents keeps
// one client for each.
//
// An id that cannot be sent makes the calls of the returned client fail with
// [ErrInvalidAgentID].
func (c *Client) As(agentID string) *Client {
	return c.core.client(newAgentHeader(agentID))
}
