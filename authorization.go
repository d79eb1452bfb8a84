package agrenting

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Authorization authenticates one request that the SDK does not send itself: a
// handshake or a call of a library that takes neither an [http.Client] nor an
// [http.RoundTripper]. It is immutable, safe for concurrent use, and prints and logs
// without the secret. Use it at once: credentials are renewed and rotated.
type Authorization struct {
	t          *Transport
	generation *generation
	agent      agentHeader
	path       evidence.Route
	seen       doubt
	rejected   time.Time // when Rejected was last called
}

// Authorize returns the headers that authenticate a request to rawURL. The URL must be
// at an origin of [WithBaseURL] or [WithAllowedOrigins], with https or wss (http and ws
// on loopback). Like a request, Authorize waits while a credential is obtained or the
// key is rotated in place, until ctx ends.
//
//	auth, err := client.Authorize(ctx, url)
//	for err == nil {
//		conn, resp, dialErr := dialer.DialContext(ctx, url, auth.Header())
//		if dialErr == nil || resp == nil || resp.StatusCode != http.StatusUnauthorized {
//			return conn, dialErr
//		}
//		auth, err = auth.Rejected(ctx)
//	}
//	return nil, err
//
// The errors are those of [Client.Credential], [ErrNoCredential] for an
// anonymous client, [ErrForeignOrigin] and [ErrInsecureURL] for a URL that must not
// receive the credential, [ErrInvalidOption] for an invalid URL, and
// [ErrInvalidAgentID] for the agent of ctx.
//
// Prefer [Client.HTTPClient] where it can be used: it does all of this, checks
// redirects, and lets rotations in place wait for requests on the wire.
func (c *Client) Authorize(ctx context.Context, rawURL string) (*Authorization, error) {
	t := c.transport
	u, err := origin.Parse(httpScheme(rawURL), t.insecure)
	if err != nil {
		return nil, err
	}
	if !t.origins.Has(u) {
		return nil, t.origins.Foreign(u)
	}
	a := &Authorization{t: t, agent: t.agent, path: evidence.Route{Method: http.MethodGet, Path: u.Path}}
	if own := perCallFrom(ctx).agent; own.set() {
		a.agent = own
	}
	if a.agent.err != nil {
		return nil, a.agent.err
	}
	if a.generation, err = t.creds.waitOpen(ctx, nil); err != nil {
		return nil, err
	}
	if a.generation.Value.cred.IsZero() {
		return nil, fmt.Errorf("%w: the client is anonymous", ErrNoCredential)
	}
	a.generation.Value.history.Lend()
	return a, nil
}

// httpScheme returns the http URL with the same host and port as a socket's URL.
func httpScheme(rawURL string) string {
	scheme, rest, _ := strings.Cut(rawURL, ":")
	switch ascii.ToLower(scheme) {
	case "ws":
		return "http:" + rest
	case "wss":
		return "https:" + rest
	default:
		return rawURL
	}
}

// Header returns the headers to send: the one with the credential, and X-Agent-Id if an
// agent was chosen, by their canonical names. The result is a secret. The caller owns
// it.
func (a *Authorization) Header() http.Header {
	s := a.generation.Value
	h := http.Header{s.name: {s.cred.c.Values()[0]}}
	if a.agent.values != nil {
		h.Set(wire.HeaderAgentID, a.agent.id())
	}
	return h
}

// forgetAfter is the time after which a rejection is unrelated to the one before:
// successful handshakes are not reported.
const forgetAfter = time.Minute

// Rejected reports to the client that the platform returned 401, and returns what to
// try next, after a short pause. That is another credential, or the same one if it is
// not the reason for the 401. The client renews a dead credential, once for all
// concurrent callers, unless it has another one already. Call it only after a 401, and
// open another connection for the next attempt.
//
// [ErrUnauthorized] means that there is nothing else to try: the source returns the
// same credential again, or the platform refused all attempts. Other errors are those of
// the renewal, for example a [*RenewalError].
func (a *Authorization) Rejected(ctx context.Context) (*Authorization, error) {
	if a.t.creds.closed() {
		return nil, ErrClosed
	}
	// A rotation in place may be the reason, and about to bring the next one.
	if _, err := a.t.creds.waitOpen(ctx, a.generation); err != nil {
		return nil, err
	}
	next := *a
	now := time.Now()
	if now.Sub(a.rejected) > forgetAfter {
		next.seen = doubt{}
	}
	next.rejected = now
	gen, err := a.t.creds.after(ctx, refusal{gen: a.generation, path: a.path}, &next.seen)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // which may be why nothing else was found
	}
	if err == nil && gen == nil {
		err = fmt.Errorf("%w: the platform refuses the %s %s, and no other credential is available",
			ErrUnauthorized, a.generation.Value.cred.Kind(), a.generation.Value.cred.Fingerprint())
	}
	if err != nil {
		return nil, err
	}
	if next.generation, err = a.t.creds.waitOpen(ctx, gen); err != nil {
		return nil, err
	}
	return &next, nil
}

// String returns the kind and the fingerprint of the credential.
func (a *Authorization) String() string {
	if a == nil || a.generation == nil {
		return "agrenting.Authorization(none)"
	}
	cred := a.generation.Value.cred
	return "agrenting.Authorization(" + cred.Kind().String() + ", " + cred.Fingerprint() + ")"
}

// GoString returns what String returns.
func (a *Authorization) GoString() string { return a.String() }

// Format writes what String returns, for every verb and flag.
func (a *Authorization) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// LogValue returns what String returns.
func (a *Authorization) LogValue() slog.Value { return slog.StringValue(a.String()) }
