package agrenting

import (
	"context"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// Trace records how often a request was sent, and with which credential last. Put it into
// the request's context with [ContextWithTrace]; the transport fills it in. It contains
// no secret.
//
// The goroutine that sends the request writes the Trace. Read it after the response has
// come, and use one for each request.
type Trace struct {
	// Attempts is how often the request was sent, including retries and resends.
	Attempts int
	// Generation, Kind, and Fingerprint describe the credential that was used last.
	Generation  uint64
	Kind        Kind
	Fingerprint string
	// Err is why the request was not sent again after a 401, such as
	// [ErrNotReplayable].
	Err error

	generation *generation
	// unknown is set if an attempt may have taken effect although its response was lost.
	unknown bool
}

// ContextWithTrace returns a context whose request is recorded in tr. It is how
// tracing adds attempts and generation to a span.
func ContextWithTrace(ctx context.Context, tr *Trace) context.Context {
	p := *perCallFrom(ctx)
	p.trace = tr
	return p.in(ctx)
}

// Redact returns text without the credential of the SDK that the request was sent with
// last, which is replaced by "[redacted]". It does not know a credential that the caller
// set on the request. Use it for parts of a response that are shown or stored,
// because the platform may echo a credential. It finds the credential in the encodings in
// which platforms print it, such as base64, and changes nothing else. The result is not
// always valid JSON: decode JSON first, and redact its strings.
//
// It may be called as soon as a part of the response is there.
func (tr *Trace) Redact(text string) string {
	if tr.generation == nil || tr.generation.Value.cred.IsZero() {
		return text
	}
	return tr.generation.Value.redact(text)
}

// sent and failed do nothing if the caller did not ask for a trace.
func (tr *Trace) sent(gen *generation) {
	if tr != nil {
		tr.record(gen)
	}
}

func (tr *Trace) record(gen *generation) {
	tr.Attempts++
	tr.Err = nil
	if tr.generation != gen { // Redact may read it for an informational response
		tr.generation = gen
	}
	if gen.Value.name != "" {
		tr.Generation, tr.Kind, tr.Fingerprint = gen.Number, gen.Value.cred.Kind(), gen.Value.cred.Fingerprint()
	}
}

// lost records that the effect of an attempt is unknown: there was no response, one that
// broke off, or one of a server or gateway that failed.
func (tr *Trace) lost(resp *http.Response, err error) {
	if tr != nil && (err != nil || resp.StatusCode == http.StatusRequestTimeout || resp.StatusCode >= http.StatusInternalServerError ||
		wire.BrokenOff(resp) != nil) {
		tr.unknown = true
	}
}

func (tr *Trace) failed(err error) {
	if tr != nil {
		tr.Err = err
	}
}
