package evidence

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Asker asks the platform about a credential. Each call uses a connection that is not used
// again. Here, Dead means a single refusal.
type Asker interface {
	Verdict(ctx context.Context, c secret.Credential) Verdict
}

const (
	// deadAfter is how many consecutive refusals prove that a credential is dead.
	// firstPause is the pause after the first refusal; it doubles with each further one.
	deadAfter, firstPause = 3, 50 * time.Millisecond
	// believedFor is how long a verdict other than Dead counts. The platform is asked about
	// a young credential equally often.
	believedFor = time.Second
	// askTimeout limits one inquiry.
	askTimeout = 5 * time.Second
)

// inquiry is a series of calls about one credential. All callers that wait share it.
type inquiry struct {
	done    chan struct{}
	verdict Verdict // set when done
}

// Judge returns the platform's verdict about a credential, and asks the platform if
// necessary. A canceled caller gets Unknown; the other callers are not affected.
//
// Until the platform has accepted a credential of this kind when it was asked, its route
// may refuse all of them. Until then, Dead counts only as often as a verdict that proves
// nothing may cause a renewal.
func (h *History) Judge(ctx context.Context) Verdict {
	v := h.inquire(ctx)
	b := h.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if v == Dead && !h.believed && !b.verifiable[h.cred.Kind()] {
		if h.believed = b.useUnprovenLocked(); !h.believed {
			return Unknown
		}
	}
	return v
}

// Confirms reports whether the platform calls the credential dead, too, after another call
// was refused.
func (h *History) Confirms(ctx context.Context) bool { return h.inquire(ctx) == Dead }

// Accept records that the platform accepted a call other than a request of the caller.
func (h *History) Accept() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	h.acceptLocked(time.Now())
	h.succeededLocked(time.Time{})
}

// Try asks about a credential in the background, if it is not yet known whether the
// platform accepts credentials of this kind when it is asked. Call it for the successor of
// a dead credential. The verdict does not count for a later 401.
func (h *History) Try() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if !h.book.verifiable[h.cred.Kind()] && h.inquiry == nil {
		h.inquireLocked(true)
	}
}

// inquire returns the verdict of the last inquiry while it counts. Otherwise, it returns
// the verdict of a new inquiry.
func (h *History) inquire(ctx context.Context) Verdict {
	b := h.book
	b.mu.Lock()
	if h.verdict == Dead || (h.verdict != Unasked && time.Since(h.judged) < believedFor) {
		defer b.mu.Unlock()
		return h.verdict
	}
	q := h.inquireLocked(false) //nolint:contextcheck // it serves all callers that wait
	b.mu.Unlock()
	if q == nil {
		return Unknown
	}
	select {
	case <-q.done:
		return q.verdict
	case <-ctx.Done():
		return Unknown
	}
}

// inquireLocked returns the inquiry under way, or begins one. It returns nil after Close.
func (h *History) inquireLocked(trial bool) *inquiry {
	b := h.book
	if h.inquiry != nil || b.closed {
		return h.inquiry
	}
	q := &inquiry{done: make(chan struct{})}
	h.inquiry, h.asked = q, time.Now()
	b.calls.Go(func() {
		v := Unknown
		defer func() {
			_ = recover() // a panic of the base transport says nothing about the credential
			b.mu.Lock()
			defer b.mu.Unlock()
			if q.verdict, h.inquiry = v, nil; !trial {
				h.verdict, h.judged, h.contradicted = v, time.Now(), false
			}
			close(q.done)
		}()
		v = h.ask()
	})
	return q
}

// ask makes the calls.
func (h *History) ask() Verdict {
	b := h.book
	ctx, cancel := context.WithTimeout(b.context(), askTimeout)
	defer cancel()
	for n := 1; ; n++ {
		sent := time.Now()
		v := b.asker.Verdict(ctx, h.cred)
		if done, verdict := h.weigh(v, n, sent); done {
			return verdict
		}
		if !sleep(ctx, Jittered(firstPause<<(n-1))) {
			return Unknown
		}
	}
}

// weigh decides after the n-th call of an inquiry. Requests that were accepted during the
// inquiry do not count, because their route may accept every caller.
func (h *History) weigh(v Verdict, n int, sent time.Time) (done bool, verdict Verdict) {
	b := h.book
	b.mu.Lock()
	defer b.mu.Unlock()
	switch now := time.Now(); {
	case v == Alive:
		h.acceptLocked(sent)
		h.succeededLocked(sent)
		h.verified = now
		b.verifiable[h.cred.Kind()] = true
		return true, Alive
	case v != Dead || h.youngLocked(now):
		return true, Unknown
	case n < deadAfter:
		return false, Unknown
	default:
		return true, Dead
	}
}

// Verifies records that the platform accepted a credential that the SDK verified for
// another reason.
func (b *Book) Verifies(c secret.Credential) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verifiable[c.Kind()] = true
	for _, h := range b.histories {
		if h.cred.Equal(c) {
			h.acceptLocked(time.Now())
			h.succeededLocked(time.Time{})
			h.verified = time.Now()
		}
	}
}

// Jittered returns d, plus or minus up to a fifth.
func Jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64())) // #nosec G404 -- jitter needs no secrecy
}

// PauseBefore returns the pause before the n-th resend, counted from 0.
func PauseBefore(n int) time.Duration {
	const first, last = 50 * time.Millisecond, 300 * time.Millisecond
	return Jittered(min(first<<min(n, 3), last))
}

// sleep waits for d. It returns false if ctx has ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
