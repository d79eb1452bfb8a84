package agrenting

import (
	"context"
	"net/http"

	"github.com/agrenting/agrenting-go/internal/hook"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// Trace records how often a request was sent, and which credential it was last sent with. Put
// it into the request's context with [ContextWithTrace]; the transport fills it in. It contains
// no secret. Most programs only use Attempts and Generation:
//
//	var tr agrenting.Trace
//	resp, err := client.Do(agrenting.ContextWithTrace(ctx, &tr), http.MethodGet, path, nil, &out)
//	log.Printf("%d attempts, last with credential %d", tr.Attempts, tr.Generation)
//
// The goroutine that sends the request writes the Trace. Read it after the response has
// arrived, and use a new one for each request.
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

// ContextWithTrace returns a context whose request is recorded in tr. Tracing uses it to add
// the attempts and the generation to a span.
func ContextWithTrace(ctx context.Context, tr *Trace) context.Context {
	p := *perCallFrom(ctx)
	p.trace = tr
	return p.in(ctx)
}

// Redact replaces the credential that was last sent with the request by "[redacted]". Use it
// for parts of a response that are shown or stored, because the platform may echo a
// credential. It finds the credential in common encodings, such as base64, and changes nothing
// else. It does not replace a credential that the caller set on the request. The result is not
// always valid JSON: decode JSON first, and redact its strings.
//
// Redact may be called once a part of the response has arrived.
func (tr *Trace) Redact(text string) string {
	if tr.generation == nil || tr.generation.Value.cred.IsZero() {
		return text
	}
	return tr.generation.Value.redactor().Redact(text)
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

// Instrumentation observes a client, for metrics and traces. Any of its functions may be nil.
// Most programs use the modules otelagrenting or promagrenting. This one
// counts the responses by status:
//
//	agrenting.WithInstrumentation(agrenting.Instrumentation{
//		Request: func(ctx context.Context, _ agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
//			return ctx, func(r agrenting.RequestResult) { count(r.StatusCode) }
//		},
//	})
//
// Request and Attempt are called by the goroutine of the request, so they should return
// quickly. All functions may be called concurrently. The request is not affected if one
// panics; the first panic is logged. No function is given a credential, a header, a body, or
// a query string.
type Instrumentation struct {
	// Request is called when a request begins, before it waits for a credential. It returns
	// a context derived from ctx, which is used for the request (for example, with a span in
	// it), and a function that is called when the request ends. Either may be nil. A request
	// ends when its response headers have arrived or when it has failed, and one of
	// [Client.Do] when a successful response has been read. Each hop of a redirect is a
	// request.
	Request func(ctx context.Context, r RequestInfo) (context.Context, func(RequestResult))
	// Attempt is the same for each time that the request is sent. The base transport gets the
	// context. The next attempt begins when the one before it has ended.
	Attempt func(ctx context.Context, a AttemptInfo) (context.Context, func(AttemptResult))
	// Event is called like the function of [WithObserver].
	Event func(Event)
	// Start is called once, by [New] or [NewTransport]. status describes the client; it makes
	// no request and may be called at any time. Start returns a function that is called when
	// the client is closed, or nil.
	Start func(status func() Status) (stop func())
}

// WithInstrumentation observes the client. If it is given several times, all of them are
// called, in this order. Without one, requests do no additional work.
func WithInstrumentation(i Instrumentation) Option {
	return func(cfg *config) error {
		if i.Request == nil && i.Attempt == nil && i.Event == nil && i.Start == nil {
			return optionError("WithInstrumentation", "it has no functions")
		}
		cfg.instruments = append(cfg.instruments, i)
		return nil
	}
}

// start calls the Start functions of the instrumentations. It returns a function that calls
// what they returned.
func start(all []Instrumentation, status func() Status, panicked func(value any)) (stop func()) {
	var stops []func()
	for _, i := range all {
		if i.Start != nil {
			hook.Call(panicked, func() { stops = append(stops, i.Start(status)) })
		}
	}
	return func() {
		for _, stop := range stops {
			if stop != nil {
				hook.Call(panicked, stop)
			}
		}
	}
}

// newMonitor returns nil if nothing observes the requests.
func newMonitor(cfg *config, panicked func(value any)) *monitor {
	r := &monitor{log: cfg.logger}
	for _, i := range cfg.instruments {
		r.requests.Add(i.Request, panicked)
		r.attempts.Add(i.Attempt, panicked)
	}
	if r.log == nil && r.requests.Empty() && r.attempts.Empty() {
		return nil
	}
	return r
}
