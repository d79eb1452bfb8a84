package agrenting

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/socket"
)

// SocketHTTPClient returns an http.Client for WebSocket libraries that dial with
// one. The platform's sockets take the credential in the query, as api_key, or as
// session_token if it is a session. The client adds it when it sends the request, so
// the library, its logs, and its errors never have it:
//
//	const agentSocket = "wss://agrenting.com/socket/agent/websocket?vsn=2.0.0"
//	conn, _, err := websocket.Dial(ctx, agentSocket, &websocket.DialOptions{
//		HTTPClient: client.SocketHTTPClient(),
//	})
//
// API keys use /socket/agent, user tokens /socket/hirer, and sessions /socket
// (platform documentation, "Channels" and "WebSocket").
//
// Everything else is as with [Client.HTTPClient]. The credential is sent only to the
// pinned origins. A credential that the caller set wins, in a header or in the query.
// A 401 renews the credential, and a handshake that fails is retried as the
// [RetryPolicy] says. The client follows no redirect. Use it only for sockets:
// elsewhere the platform expects headers, and queries end up in logs. A transport of
// [WithTransport] sees the query.
//
// A connection stays open when its credential is renewed or rotated. The platform
// does not document what happens to a connection whose key is revoked.
func (c *Client) SocketHTTPClient() *http.Client {
	t := *c.transport
	t.base = socket.NewTransport(t.base, addedCredential)
	return &http.Client{
		Transport:     &socketTransport{t: &t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// addedCredential is the credential that the SDK added to a request, and its header.
func addedCredential(ctx context.Context) (header string, cred secret.Credential) {
	trace := perCallFrom(ctx).trace
	if trace == nil || trace.generation == nil {
		return "", secret.Credential{}
	}
	return trace.generation.Value.name, trace.generation.Value.cred.c
}

// socketTransport is a Transport whose base moves the credential into the query.
type socketTransport struct{ t *Transport }

var _ http.RoundTripper = (*socketTransport)(nil)

func (s *socketTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	// The trace tells the base which credential the request carries. The caller's
	// trace may have been used before, so the request gets a new one.
	ctx := req.Context()
	pc, trace := *perCallFrom(ctx), new(Trace)
	caller := pc.trace
	pc.trace = trace
	own := req.WithContext(pc.in(ctx))
	var resp *http.Response
	var err error
	if req.URL != nil && socket.HasCredential(req.URL) && s.t.origins.Manages(req) && origin.Secure(req.URL, s.t.insecure) {
		resp, err = s.t.pass(own, own)
	} else {
		resp, err = s.t.RoundTrip(own)
	}
	if caller != nil {
		*caller = *trace
	}
	if resp != nil {
		resp.Request = noteOf(resp).on(req)
	}
	return resp, err
}

// CloseIdleConnections closes those of the base.
func (s *socketTransport) CloseIdleConnections() { s.t.CloseIdleConnections() }

// String names the transport inside.
func (s *socketTransport) String() string { return "agrenting.SocketTransport(" + s.t.String() + ")" }

// GoString returns what String returns.
func (s *socketTransport) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb and its flags.
func (s *socketTransport) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }
