package agrenting

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// WebhookDelivery is a webhook whose signature is valid. The members of its body
// are those that the platform's own client reads; one that is missing or of
// another type leaves its field zero, and unknown ones are in Body.
type WebhookDelivery struct {
	// Event is what X-Webhook-Event says, such as "task.completed". It is not
	// signed: anybody who has a valid body can send it under another event.
	Event string
	// TaskID is the task of the signed body. Where the body names none it is
	// what X-Webhook-Task-Id says, and TaskIDSigned is false.
	TaskID       string
	TaskIDSigned bool

	// Status is the state of the task, such as "completed". Take it for what was
	// so once: the webhook may be late, or sent again by somebody.
	Status string
	// Output is the raw JSON of the task's result; nil if there is none.
	Output json.RawMessage
	// ErrorReason says why a task has failed.
	ErrorReason string
	// ProgressPercent is from 0 to 100; nil if it is not given.
	ProgressPercent *float64
	ProgressMessage string
	// Created and Completed are zero when they are not known.
	Created, Completed time.Time

	// Body is the signed body as it arrived. It must not be changed.
	Body []byte
}

type webhookContextKey struct{}

// WebhookFromContext returns the webhook of a request that has passed
// [WebhookVerifier.Handler]. It is shared by all who ask, and must not be
// changed.
func WebhookFromContext(ctx context.Context) (*WebhookDelivery, bool) {
	d, ok := ctx.Value(webhookContextKey{}).(*WebhookDelivery)
	return d, ok
}

// parseWebhookDelivery reads a signed body. The platform's own client finds the
// members at the top; they are also looked for under "data", where the platform
// puts the content of its answers.
func parseWebhookDelivery(body []byte, h http.Header) (*WebhookDelivery, bool) {
	var m map[string]json.RawMessage
	if json.Unmarshal(body, &m) != nil || m == nil {
		return nil, false
	}
	if _, top := m["task_id"]; !top {
		var inner map[string]json.RawMessage
		if json.Unmarshal(m["data"], &inner) == nil && inner["task_id"] != nil {
			m = inner
		}
	}
	d := &WebhookDelivery{
		Event:           h.Get(headerWebhookEvent),
		TaskID:          firstString(m, "task_id"),
		Status:          firstString(m, "status"),
		ErrorReason:     firstString(m, "error_reason"),
		ProgressMessage: firstString(m, "progress_message"),
		Created:         timeOf(m, "created_at"),
		Completed:       timeOf(m, "completed_at"),
		Body:            body,
	}
	d.TaskIDSigned = d.TaskID != ""
	if !d.TaskIDSigned {
		d.TaskID = h.Get(headerWebhookTaskID)
	}
	if out := m["output"]; out != nil && string(out) != "null" {
		d.Output = out
	}
	if json.Unmarshal(m["progress_percent"], &d.ProgressPercent) != nil {
		d.ProgressPercent = nil
	}
	return d, true
}

// WebhookState is what a [WebhookLedger] knows of a body.
type WebhookState uint8

const (
	// WebhookNew has not been handled, and is now being handled by whoever asked.
	WebhookNew WebhookState = iota
	// WebhookBusy is being handled by somebody else.
	WebhookBusy
	// WebhookDone has been handled.
	WebhookDone
)

// A WebhookLedger remembers which bodies were handled, so that a webhook that is
// sent again, be it by the platform or by somebody who has seen it, is handled
// once. It must be safe for concurrent use. Programs that share the work need
// one that they share; [NewWebhookLedger] is for one process.
//
// A body is known by its SHA-256 in hex. Headers do not count, since they are not
// signed, and neither does the secret. It protects for as long as the ledger
// remembers, and no longer.
type WebhookLedger interface {
	// Begin reports what is known of a body. [WebhookNew] makes the caller the
	// one who handles it, until End; Begin says [WebhookBusy] to others
	// meanwhile. An entry whose End never comes, because the process died, must
	// become new again after a time. On an error the webhook is answered 503.
	Begin(ctx context.Context, id string) (WebhookState, error)
	// End says that the handler has returned. If it did not answer with success,
	// done is false, and the platform's next try is to be new. Its context does
	// not end with the request.
	End(ctx context.Context, id string, done bool) error
}

// once hands a webhook on unless the ledger knows it.
func (v *WebhookVerifier) once(w http.ResponseWriter, r *http.Request, d *WebhookDelivery, next http.Handler) {
	unavailable := func(reason string) {
		w.Header().Set("Retry-After", "5")
		v.refuse(w, r, &webhookRefusal{status: http.StatusServiceUnavailable, answer: "try again", reason: reason})
	}
	id := fmt.Sprintf("%x", sha256.Sum256(d.Body))
	state, err := v.ledger.Begin(r.Context(), id)
	switch {
	case err != nil:
		unavailable("the ledger failed: " + safeText(err.Error()))
	case state == WebhookDone:
		w.WriteHeader(http.StatusOK)
	case state == WebhookBusy:
		// Not a success: if the one who is at it fails, the platform has to come again.
		unavailable("the same webhook is being handled")
	default:
		seen := &statusWriter{ResponseWriter: w}
		done, ctx := false, context.WithoutCancel(r.Context())
		defer func() { // also when next panics
			if err := v.ledger.End(ctx, id, done); err != nil && v.log != nil {
				v.log.WarnContext(ctx, "agrenting: webhook ledger failed", "error", safeText(err.Error()))
			}
		}()
		next.ServeHTTP(seen, r)
		done = seen.status == 0 || (seen.status >= 200 && seen.status < 300)
	}
}

// statusWriter notes the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int // 0 until it is written, which at the end stands for 200
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status < 200 { // those below are followed by another
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// NewWebhookLedger returns a ledger in memory that remembers a body for keep, and
// the latest most of them. One that is being handled is forgotten after keep too,
// in case its handler never returns. It panics if either is not positive.
func NewWebhookLedger(keep time.Duration, most int) WebhookLedger {
	if keep <= 0 || most <= 0 {
		panic("agrenting: NewWebhookLedger: keep and most have to be positive")
	}
	return &webhookMemory{keep: keep, most: most, entries: make(map[string]*list.Element)}
}

type webhookMemory struct {
	keep time.Duration
	most int

	mu      sync.Mutex
	entries map[string]*list.Element
	order   list.List // of *webhookEntry, the oldest first
}

type webhookEntry struct {
	id   string
	at   time.Time
	done bool
}

var _ WebhookLedger = (*webhookMemory)(nil)

func (m *webhookMemory) Begin(_ context.Context, id string) (WebhookState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for e := m.order.Front(); e != nil && now.Sub(entryOf(e).at) >= m.keep; e = m.order.Front() {
		m.forget(e)
	}
	if e := m.entries[id]; e != nil {
		if entryOf(e).done {
			return WebhookDone, nil
		}
		return WebhookBusy, nil
	}
	if m.order.Len() >= m.most {
		m.forget(m.order.Front())
	}
	m.entries[id] = m.order.PushBack(&webhookEntry{id: id, at: now})
	return WebhookNew, nil
}

func (m *webhookMemory) End(_ context.Context, id string, done bool) error {
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

func (m *webhookMemory) forget(e *list.Element) {
	delete(m.entries, entryOf(e).id)
	m.order.Remove(e)
}

func entryOf(e *list.Element) *webhookEntry {
	return e.Value.(*webhookEntry) //nolint:errcheck,forcetypeassert // nothing else is put in
}
