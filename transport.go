package agrenting

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"

	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/retry"
	"github.com/agrenting/agrenting-go/internal/socket"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Transport is an [http.RoundTripper] that adds the credential, X-Agent-ID, renewal, and
// retries to requests to the platform:
//
//   - Requests to the pinned origins (those of the base URL and the allowed ones) get
//     exactly one credential header. A credential that the caller set wins; nothing is
//     then added or sent again.
//   - Requests to other origins get no credential. A redirect that leaves the pinned
//     origins removes credentials and X-Agent-ID, even those that the caller set, and
//     they are not added again if a later redirect comes back.
//   - Plain http is refused, except on loopback.
//   - After a 401 to the SDK's own credential, the credential is renewed and the request
//     is sent again if its body can be.
//   - The caller's requests are not changed, and bodies are not buffered.
//
// A Transport is immutable and safe for concurrent use.
type Transport struct {
	base     http.RoundTripper
	creds    *credentialCache
	origins  origin.Set
	agent    agentHeader
	insecure bool
	socket   http.RoundTripper // in place of base if the credential goes into the query; nil otherwise
	retry    *retry.Retrier
	log      *slog.Logger // nil is silent
	core     *core
}

var _ http.RoundTripper = (*Transport)(nil)

// NewTransport returns a Transport for programs with their own http.Client. It takes the
// options of [New], with src in place of the credential options. It makes no request.
//
// The http.Client decides which redirects it follows. Those that leave the pinned
// origins carry no credential. Close it with [Transport.Close].
func NewTransport(src CredentialSource, opts ...Option) (*Transport, error) {
	core, err := newCore(append(slices.Clip(opts), WithCredentialSource(src)))
	if err != nil {
		return nil, err
	}
	return core.transport, nil
}

// Close ends renewal and waits for its goroutine. Requests fail with
// [ErrClosed] afterwards. For a [Client]'s transport, use [Client.Close].
func (t *Transport) Close() error { return t.core.close() }

// CloseIdleConnections closes the idle connections of the base, as
// [http.Client.CloseIdleConnections] asks.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements [http.RoundTripper]. Errors that it makes itself match
// [ErrInsecureURL], [ErrInvalidAgentID], [ErrNoCredential],
// [ErrEnvironmentMismatch], [ErrClosed] or are a [*RenewalError]. Errors of the base
// are returned unchanged.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil {
		closeBody(req)
		return nil, fmt.Errorf("%w: the request has no URL", ErrInvalidOption)
	}
	if !origin.Secure(req.URL, t.insecure) {
		closeBody(req)
		return nil, origin.InsecureError(req.URL)
	}
	if !t.origins.Manages(req) {
		return t.pass(req, origin.Bare(req))
	}
	credential, agent := origin.Identity(req.Header)
	if credential || (t.socket != nil && socket.HasCredential(req.URL)) {
		return t.pass(req, req)
	}
	resp, local, err := t.attempt(req, agent)
	if local || !t.retry.Worthwhile(req, resp, err) {
		return resp, err
	}
	resp, err = t.retry.Run(req, resp, err, t.retryAttempt)
	if resp != nil {
		resp.Request = noteOf(resp).on(req)
	}
	return resp, err
}

// retryAttempt is attempt for a request that is retried.
func (t *Transport) retryAttempt(req *http.Request) (resp *http.Response, local bool, err error) {
	_, agent := origin.Identity(req.Header)
	return t.attempt(req, agent)
}

// pass sends out unchanged, on behalf of req.
func (t *Transport) pass(req, out *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(out)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// attempt sends req once with the current credential, and again if a 401 says
// that the credential has been replaced. local reports that the error was made
// here and not by the base.
//
// agentSet is set if the caller named an agent in a header of the request.
func (t *Transport) attempt(req *http.Request, agentSet bool) (resp *http.Response, local bool, err error) {
	ctx := req.Context()
	pc := perCallFrom(ctx)
	agent := &t.agent
	switch {
	case agentSet:
		agent = &noAgent
	case pc.agent.set():
		agent = &pc.agent
	}
	if agent.err != nil {
		closeBody(req)
		return nil, true, agent.err
	}
	gen, err := t.creds.enter(ctx)
	if err != nil {
		closeBody(req)
		return nil, true, err
	}
	body := replay.Of(req, t.creds.renewable())
	out := t.withCredential(req, gen, agent)
	if body.Guarded() { // a store less where there is none
		out.Body = body.First(req)
	}
	base := t.base
	if t.socket != nil {
		base = t.socket
	}
	var seen refusals
	for {
		pc.trace.sent(gen)
		if t.log != nil {
			t.logAttempt(req, gen)
		}
		if g := gen.Value.gate; g == nil {
			resp, err = base.RoundTrip(out)
		} else {
			resp, err = sendGated(base, out, g)
		}
		if resp != nil {
			// The copy with the credential stays here: callers log what they find.
			resp.Request = req
			if resp.StatusCode >= http.StatusBadRequest {
				resp.Request = answerNote{generation: gen}.on(req)
			}
		}
		if err != nil || resp.StatusCode != http.StatusUnauthorized {
			body.Release()
			if seen.replays > 0 && err == nil {
				t.creds.recordAccepted(gen)
			}
			return resp, false, err
		}
		next, err := t.creds.after(ctx, gen, &seen)
		if err != nil {
			body.Release()
			replay.Discard(resp)
			return nil, true, err
		}
		if next == nil {
			body.Release()
			return resp, false, nil
		}
		if req.GetBody != nil {
			replay.Settle(resp)
		}
		again, err := body.Again(req)
		if err != nil {
			resp.Request = answerNote{generation: gen, notReplayed: err}.on(req)
			pc.trace.failed(err)
			return resp, false, nil
		}
		replay.Discard(resp)
		if gen, err = t.creds.reenter(ctx, next); err != nil {
			body.Release()
			if again != nil {
				_ = again.Close()
			}
			return nil, true, err
		}
		out = t.withCredential(req, gen, agent)
		out.Body = again
	}
}

// sendGated sends a request that has entered a gate, and leaves the gate when
// its answer's headers are there.
func sendGated(base http.RoundTripper, out *http.Request, g *gate.Gate) (*http.Response, error) {
	defer g.Leave()
	return base.RoundTrip(out)
}

// withCredential copies the request as far as the RoundTripper contract demands, and
// adds the credential and the agent. The header values are shared with every
// other request.
func (t *Transport) withCredential(req *http.Request, gen *generation, agent *agentHeader) *http.Request {
	out := new(http.Request)
	*out = *req
	out.Header = maps.Clone(req.Header)
	if out.Header == nil {
		out.Header = make(http.Header, 2)
	}
	switch {
	case gen.Value.name == "": // the client is anonymous
	case t.socket != nil:
		out.URL = socket.WithCredential(req.URL, gen.Value.cred.c)
	default:
		out.Header[gen.Value.name] = gen.Value.cred.c.Values()
	}
	if agent.values != nil {
		out.Header[wire.HeaderAgentID] = agent.values
	}
	// A Host that differs from the URL's would give the credential to another host
	// behind the same front end.
	if out.Host != out.URL.Host {
		out.Host = ""
	}
	return out
}

func (t *Transport) logAttempt(req *http.Request, gen *generation) {
	if !t.log.Enabled(req.Context(), slog.LevelDebug) {
		return
	}
	t.log.LogAttrs(req.Context(), slog.LevelDebug, "agrenting: request",
		slog.String("method", req.Method), slog.String("host", req.URL.Host), slog.String("path", req.URL.Path),
		slog.Uint64("generation", gen.Number), slog.String("credential", gen.Value.cred.Fingerprint()))
}

// answerNote goes with an answer that is an error, for [CheckResponse].
type answerNote struct {
	// generation is what the request was sent with: the answer may echo it.
	generation *generation
	// notReplayed is the reason why a 401 was not answered by a replay.
	notReplayed error
}

type answerNoteKey struct{}

// on returns req with the note, as the Request of an answer.
func (n answerNote) on(req *http.Request) *http.Request {
	if n.generation == nil {
		return req
	}
	return req.WithContext(context.WithValue(req.Context(), answerNoteKey{}, n))
}

// noteOf is the note of an answer, the zero one if there is none.
func noteOf(resp *http.Response) answerNote {
	if resp.Request == nil {
		return answerNote{}
	}
	n, _ := resp.Request.Context().Value(answerNoteKey{}).(answerNote)
	return n
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// String sums the transport up without secrets.
func (t *Transport) String() string {
	if t == nil || len(t.origins) == 0 {
		return "agrenting.Transport()"
	}
	return fmt.Sprintf("agrenting.Transport(%s)", t.origins[0])
}

// GoString implements [fmt.GoStringer] like String.
func (t *Transport) GoString() string { return t.String() }

// Format implements [fmt.Formatter]: every verb prints the summary.
func (t *Transport) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// LogValue implements [slog.LogValuer].
func (t *Transport) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText implements [encoding.TextMarshaler], so that JSON shows the
// summary too.
func (t *Transport) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
