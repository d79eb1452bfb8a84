package webhook

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// State says what a [Ledger] knows about a body.
type State uint8

const (
	// StateNew means that the body has not been handled. The caller handles it now.
	StateNew State = iota
	// StateBusy means that another caller is handling the body.
	StateBusy
	// StateDone means that the body has been handled.
	StateDone
)

// A Ledger remembers which bodies were handled. With it, a webhook that the platform
// repeats, or that someone who has seen it sends again, is handled only once. A Ledger
// must be safe for concurrent use. Several processes that handle the same webhooks
// need a shared ledger; [NewLedger] is for one process.
//
// A body is identified by its SHA-256 in hex. The headers do not count, because they
// are not signed. The secret does not count either. The protection lasts as long as
// the ledger remembers the body.
type Ledger interface {
	// Begin reports what is known about a body. After [StateNew], the caller handles
	// the body and then calls End. Until then, Begin returns [StateBusy] to other
	// callers. If End is not called, because the process died, the body must become
	// new again after some time. If Begin returns an error, the response to the
	// webhook is 503.
	Begin(ctx context.Context, id string) (State, error)
	// End reports that the handler has returned. If the handler did not respond with
	// success, done is false, and the platform's next attempt must be new. The context
	// does not end with the request.
	End(ctx context.Context, id string, done bool) error
}

// once passes a webhook to next unless the ledger says that it was handled.
func (v *Verifier) once(w http.ResponseWriter, r *http.Request, d *Delivery, next http.Handler) {
	unavailable := func(reason string) {
		w.Header().Set("Retry-After", "5")
		v.refuse(w, r, &refusal{status: http.StatusServiceUnavailable, answer: "try again", reason: reason})
	}
	id := fmt.Sprintf("%x", sha256.Sum256(d.Body))
	state, err := v.ledger.Begin(r.Context(), id)
	switch {
	case err != nil:
		unavailable("the ledger failed: " + secret.Clean(err.Error()))
	case state == StateDone:
		w.WriteHeader(http.StatusOK)
	case state == StateBusy:
		// The response is not a success, because the platform must try again if the other handler fails.
		unavailable("the same webhook is being handled")
	default:
		seen := &statusWriter{ResponseWriter: w}
		done, ctx := false, context.WithoutCancel(r.Context())
		defer func() { // runs even if next panics
			if err := v.ledger.End(ctx, id, done); err != nil && v.log != nil {
				v.log.WarnContext(ctx, "agrenting: webhook ledger failed", "error", secret.Clean(err.Error()))
			}
		}()
		next.ServeHTTP(seen, r)
		done = seen.status == 0 || (seen.status >= 200 && seen.status < 300)
	}
}

// statusWriter records the status of a response.
type statusWriter struct {
	http.ResponseWriter
	status int // 0 until it is written, which means 200 at the end
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status < 200 { // another status follows one below 200
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// NewLedger returns a ledger in memory. It remembers at most the given number of
// bodies, such as 10,000, each for the time keep, such as 24 h. After that time, it
// also forgets a body that is still being handled, because its handler may never
// return. NewLedger panics if an argument is not positive.
func NewLedger(keep time.Duration, most int) Ledger {
	if keep <= 0 || most <= 0 {
		panic("agrenting: webhook.NewLedger: keep and most must be positive")
	}
	return &memoryLedger{keep: keep, most: most, entries: make(map[string]*list.Element)}
}

type memoryLedger struct {
	keep time.Duration
	most int

	mu      sync.Mutex
	entries map[string]*list.Element
	order   list.List // of *entry, the oldest first
}

type entry struct {
	id   string
	at   time.Time
	done bool
}

var _ Ledger = (*memoryLedger)(nil)

func (m *memoryLedger) Begin(_ context.Context, id string) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for e := m.order.Front(); e != nil && now.Sub(entryOf(e).at) >= m.keep; e = m.order.Front() {
		m.forget(e)
	}
	if e := m.entries[id]; e != nil {
		if entryOf(e).done {
			return StateDone, nil
		}
		return StateBusy, nil
	}
	if m.order.Len() >= m.most {
		m.forget(m.order.Front())
	}
	m.entries[id] = m.order.PushBack(&entry{id: id, at: now})
	return StateNew, nil
}

func (m *memoryLedger) End(_ context.Context, id string, done bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e := m.entries[id]; {
	case e == nil:
	case done:
		entryOf(e).done = true
	default:
		m.forget(e)
	}
	return nil
}

func (m *memoryLedger) forget(e *list.Element) {
	delete(m.entries, entryOf(e).id)
	m.order.Remove(e)
}

func entryOf(e *list.Element) *entry {
	return e.Value.(*entry) //nolint:errcheck,forcetypeassert // nothing else is put in
}
