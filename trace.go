package agrenting

import "context"

// Trace tells what became of one request: how often it was sent, and with
// which credential last. Put it into a request's context by [ContextWithTrace];
// the transport fills it in. It contains no secret.
//
// It is written by the goroutine that sends the request: read it after the
// response has come, and use one for each request.
type Trace struct {
	// Attempts counts how often the request was sent, retries and replays
	// included.
	Attempts int
	// Generation, Kind and Fingerprint describe the credential used last.
	Generation  uint64
	Kind        Kind
	Fingerprint string
	// Err is why a 401 was not answered by a replay, such as
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

// sent and failed do nothing where nobody wants to know.
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
