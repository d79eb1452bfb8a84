package evidence

import "time"

const (
	// questionEvery is how often a credential that cannot be replaced is asked about because
	// of 401s, and contradictedEvery if requests have succeeded although the answer was Dead.
	questionEvery, contradictedEvery = watchFor, time.Minute
	// askAgainEvery is how often a rejected credential is asked about without a 401.
	askAgainEvery = 30 * time.Second
)

// Rejection says that the platform rejects a credential. The zero value says that it does
// not, as far as is known.
type Rejection struct {
	// Verdict is Dead, or Unknown if the platform does not say whether the credential is
	// alive and has answered 401 to all requests for 10 s.
	Verdict Verdict
	// Since is when the first of these 401s came.
	Since time.Time
	// Expired is set if the credential's own expiry has passed.
	Expired bool
}

// Rejected reports whether the platform rejects the credential. One 401 does not show that.
// These do:
//
//   - The platform calls the credential dead. This ends when a route that checks credentials
//     accepts it. If the platform has accepted no credential of this kind when asked, and
//     no route that had accepted this one has refused it, any success ends it.
//   - The platform has answered 401 to all requests for 10 s, and when asked after that it
//     does not say whether the credential is alive. This ends when any request succeeds.
//   - The platform has answered 401, and the credential's own expiry has passed. This, too,
//     ends when any request succeeds: a clock may be wrong.
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
	switch h.verdict {
	case Dead:
		return !h.contradicted || h.lost || h.book.verifiable[h.cred.Kind()]
	case Unknown:
		return !h.refusedSince.IsZero() && h.judged.Sub(h.refusedSince) >= watchFor
	default:
		return false
	}
}

// refusedLocked notes a 401.
func (h *History) refusedLocked(now time.Time) {
	if h.refusedSince.IsZero() && !h.youngLocked(now) {
		h.refusedSince = now
	}
}

// succeededLocked notes a request that was not refused. A zero sent is long ago.
func (h *History) succeededLocked(sent time.Time) {
	h.refusedSince = time.Time{}
	h.contradicted = h.contradicted || (h.verdict == Dead && sent.After(h.judged))
}

// Question asks about a credential in the background, because of a 401 that its request
// does not wait for: at first, and then every 10 s at most. dead is called if the
// platform calls the credential dead now and did not before.
func (h *History) Question(dead func()) {
	b, now := h.book, time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	every := questionEvery
	switch {
	case h.inquiry != nil || h.youngLocked(now) || (h.verdict == Dead && h.rejectedLocked()):
		return
	case h.verdict == Dead:
		every = contradictedEvery
	}
	if h.verdict != Unasked && now.Sub(h.asked) < every {
		return
	}
	if q := h.inquireLocked(false); q != nil {
		q.dead = dead
	}
}

// AskAgain asks about a rejected credential in the background, every 30 s at most. Only
// an acceptance counts.
func (h *History) AskAgain() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if h.inquiry == nil && h.rejectedLocked() && time.Since(h.asked) >= askAgainEvery {
		h.inquireLocked(true)
	}
}
