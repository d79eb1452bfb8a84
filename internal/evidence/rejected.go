package evidence

import (
	"context"
	"time"
)

// askAgainEvery is the interval at which the platform is asked about a rejected credential
// without a 401.
const askAgainEvery = 30 * time.Second

// Rejection says that the platform rejects a credential. The zero value means that no
// rejection is known.
type Rejection struct {
	// Verdict is Dead if the platform calls the credential dead. It is Unknown if the
	// platform does not say whether the credential is alive and has responded with 401 to
	// all requests for 10 s. It is Unasked if the credential cannot be replaced, because
	// requests do not ask about such a credential.
	Verdict Verdict
	// Since is when the first of these 401s arrived.
	Since time.Time
	// Expired is set if the credential's own expiry has passed.
	Expired bool
}

// Rejected reports whether the platform rejects the credential. A single 401 does not show
// that. Each of the following does:
//
//   - The platform calls the credential dead. This ends when a route that checks credentials
//     accepts it. If the platform has accepted no credential of this kind when asked, and
//     no route that had accepted this one has refused it, any success ends it.
//   - The platform has returned 401 to all requests for 10 s, and when asked after that it
//     does not say whether the credential is alive. This ends when any request succeeds.
//   - The platform has returned 401, and the credential's own expiry has passed. This, too,
//     ends when any request succeeds: a clock may be wrong.
//   - The credential cannot be replaced, and the platform has returned 401 to the last three
//     requests, to all requests for 10 s, or when it was asked. Requests do not ask about
//     such a credential: the response would not help them. This ends when any request
//     succeeds, or when the platform says that the credential is alive.
func (h *History) Rejected() (Rejection, bool) {
	if h == nil {
		return Rejection{}, false
	}
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return Rejection{Verdict: h.verdict, Since: h.refusedSince, Expired: h.expired()}, h.rejectedLocked()
}

// expired reports whether the credential's own expiry has passed by the local clock.
func (h *History) expired() bool {
	end := h.cred.Expires()
	return !end.IsZero() && !time.Now().Before(end)
}

func (h *History) rejectedLocked() bool {
	if !h.refusedSince.IsZero() && h.expired() {
		return true
	}
	if h.from == Fixed && h.verdict != Dead {
		return h.denied || h.refusals >= deadAfter || h.lasting
	}
	switch h.verdict {
	case Dead:
		return !h.contradicted || h.lost || h.book.verifiable[h.cred.Kind()]
	case Unknown:
		return !h.refusedSince.IsZero() && h.judged.Sub(h.refusedSince) >= watchFor
	default:
		return false
	}
}

// refusedLocked notes a 401. known is set if the route has accepted the credential before: a
// route that always returns 401 says nothing about a credential that works elsewhere.
func (h *History) refusedLocked(now time.Time, known bool) {
	if h.youngLocked(now) {
		return
	}
	if h.refusedSince.IsZero() {
		h.refusedSince = now
	}
	h.lasting = h.lasting || now.Sub(h.refusedSince) >= watchFor
	if known || h.used.IsZero() {
		h.refusals = min(h.refusals+1, deadAfter)
	}
}

// succeededLocked notes a request that was not refused. A zero sent is long ago.
func (h *History) succeededLocked(sent time.Time) {
	h.answeredLocked()
	h.denied, h.reported = false, false
	h.contradicted = h.contradicted || (h.verdict == Dead && sent.After(h.judged))
}

// answeredLocked ends a row of 401s.
func (h *History) answeredLocked() {
	h.refusedSince, h.refusals, h.lasting = time.Time{}, 0, false
}

// Denied records that the platform has refused the credential when the caller asked about
// it.
func (h *History) Denied() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	h.denied = true
}

// Report reports whether the credential is rejected. It returns true only once until a
// request succeeds.
func (h *History) Report() bool {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if h.reported || !h.rejectedLocked() {
		return false
	}
	h.reported = true
	return true
}

// AskAgain asks the platform about a rejected credential, at most every 30 s, and waits for
// the response. A rejection that the platform has confirmed ends only when the platform
// accepts the credential. A rejection that is based on the number of 401s ends unless the
// platform confirms it.
func (h *History) AskAgain(ctx context.Context) {
	b := h.book
	b.mu.Lock()
	if h.inquiry != nil || !h.rejectedLocked() || time.Since(h.asked) < askAgainEvery {
		b.mu.Unlock()
		return
	}
	counted := h.from == Fixed && h.verdict != Dead && !h.denied && !h.expired()
	q := h.inquireLocked(true) //nolint:contextcheck // it serves later callers, too
	b.mu.Unlock()
	if q == nil {
		return
	}
	select {
	case <-q.done:
	case <-ctx.Done():
		return
	}
	if counted && q.verdict != Dead {
		h.Answered()
	}
}
