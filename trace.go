package agrenting

import "context"

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
}

// ContextWithTrace returns a context whose request is recorded in tr. It is how
// tracing adds attempts and generation to a span.
func ContextWithTrace(ctx context.Context, tr *Trace) context.Context {
	p := *perCallFrom(ctx)
	p.trace = tr
	return p.in(ctx)
}

// sent and failed do nothing if the caller did not ask for a trace.
func (tr *Trace) sent(gen *generation) {
	if tr == nil {
		return
	}
	tr.Attempts++
	tr.generation, tr.Err = gen, nil
	if gen.Value.name != "" {
		tr.Generation, tr.Kind, tr.Fingerprint = gen.Number, gen.Value.cred.Kind(), gen.Value.cred.Fingerprint()
	}
}

func (tr *Trace) failed(err error) {
	if tr != nil {
		tr.Err = err
	}
}
