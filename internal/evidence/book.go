package evidence

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

const (
	// youngFor is how long parts of the platform may not know a credential that it has
	// issued.
	youngFor = 4 * time.Second
	// usedFor is how long after a success the credential is unlikely to be dead.
	usedFor = time.Second
	// watchFor is how long all responses are recorded after a 401. refusingMax is the same
	// for a 401 of a path that refuses all requests.
	watchFor, refusingMax = 10 * time.Second, time.Minute
	// sampleEvery is how often a success is recorded at other times.
	sampleEvery = usedFor / 2
	// maxHistories bounds how many credentials are remembered.
	maxHistories = 8
	// maxUnproven is how many renewals may be caused within unprovenWindow by verdicts that
	// prove nothing.
	maxUnproven, unprovenWindow = 2, time.Minute
)

// Book keeps the evidence about the credentials of one client. It is safe for concurrent
// use.
type Book struct {
	asker  Asker
	ctx    context.Context //nolint:containedctx // parent of the calls, ended by Close; nil before the first
	cancel context.CancelFunc
	calls  sync.WaitGroup

	mu         sync.Mutex
	histories  []*History         // the newest last
	paths      []*path            // of the routes that were used, in no order
	refused    time.Time          // when the last 401 came
	refusing   time.Time          // when the last 401 of a path that refuses all requests came
	verifiable [secret.Kinds]bool // the platform has accepted a credential of this kind when asked
	unproven   []time.Time        // renewals because of a verdict that proves nothing
	closed     bool
}

// NewBook returns an empty book.
func NewBook(a Asker) *Book {
	return &Book{asker: a}
}

// context returns the parent of the calls.
func (b *Book) context() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx == nil {
		b.ctx, b.cancel = context.WithCancel(context.Background()) // #nosec G118 -- Close calls it
		if b.closed {
			b.cancel()
		}
	}
	return b.ctx
}

// Close ends the calls under way and waits for them, for at most 5 s.
func (b *Book) Close() {
	b.mu.Lock()
	b.closed = true
	if b.cancel != nil {
		b.cancel()
	}
	b.mu.Unlock()
	done := make(chan struct{})
	go func() {
		b.calls.Wait()
		close(done)
	}()
	t := time.NewTimer(askTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C: // a base transport that ignores the context
	}
}

// History is what is known about one credential.
type History struct {
	book *Book
	cred secret.Credential

	// quiet is set while no success needs to be recorded. noted is the route of which no
	// success needs to be recorded.
	quiet atomic.Bool
	noted atomic.Pointer[Route]

	// The rest is guarded by book.mu.
	from         Provenance
	verdict      Verdict
	accepted     bool
	believed     bool // Dead counts, although the platform may refuse all credentials of this kind
	contradicted bool // a request has succeeded although the verdict is Dead
	lost         bool // a route that had accepted the credential has refused it

	// Since a request succeeded:
	refusals uint8 // 401s that count, up to deadAfter
	lasting  bool  // they have come for 10 s
	denied   bool  // the caller has asked, and the platform has refused the credential
	reported bool  // see Report

	seen     time.Time // when this process first saw it
	sent     time.Time // when the latest request that was accepted was sent
	used     time.Time // when a request succeeded, about
	verified time.Time // when Verify accepted it
	lent     int       // since the last 401, see Lend
	renewing int       // callers that renew it because of a verdict that proves nothing
	judged   time.Time
	inquiry  *inquiry // under way

	asked        time.Time // when the last inquiry began
	refusedSince time.Time // the first 401 since a request succeeded
}

// Provenance says where a credential comes from.
type Provenance uint8

// The provenances.
const (
	Given  Provenance = iota // by the user, or issued long ago
	Fixed                    // by the user, and it cannot be replaced
	Issued                   // by the platform, and just now, as far as this process knows
)

// Of returns the history of a credential.
func (b *Book) Of(c secret.Credential, from Provenance) *History {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, h := range b.histories {
		if h.cred.Equal(c) {
			b.histories = append(slices.Delete(b.histories, i, i+1), h)
			return h
		}
	}
	h := &History{book: b, cred: c, from: from, seen: time.Now()}
	b.histories = append(b.histories[max(0, len(b.histories)+1-maxHistories):], h)
	return h
}

// Quiet reports whether there is nothing to record about the success of a request.
func (h *History) Quiet(r Route) bool {
	if h.IsQuiet() {
		return true
	}
	n := h.noted.Load()
	return n != nil && n.Path == r.Path && n.Method == r.Method
}

// IsQuiet reports whether there is nothing to record about any success. A nil History is
// always quiet.
func (h *History) IsQuiet() bool { return h == nil || h.quiet.Load() }

// NeedsTime reports whether the time at which a request is sent must be known.
func (h *History) NeedsTime() bool { return h != nil && !h.quiet.Load() && h.noted.Load() == nil }

// Succeeded records a response that is not a 401. sent is the time when the request was
// sent. accepted is set if the response shows that the platform accepts the credential,
// provided that the route checks it. success is set if the response is a success.
func (h *History) Succeeded(r Route, sent time.Time, accepted, success bool) {
	b, now := h.book, time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if success {
		h.used = now
	}
	if success || accepted {
		h.succeededLocked(sent)
	}
	if accepted {
		p := b.pathLocked(r, now)
		p.refusing = false
		p.accepted, p.acceptedSent = h, sent
		if p.unauthorized {
			h.acceptLocked(sent)
		}
	}
	h.quietLocked(now, r)
}

// Answered records a response of the platform that neither refuses nor accepts the
// credential, such as a 404.
func (h *History) Answered() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	h.answeredLocked()
}

// acceptLocked notes that the platform accepts the credential. A zero sent means long ago.
// A request that was sent before the credential was found dead does not make it valid
// again.
func (h *History) acceptLocked(sent time.Time) {
	h.accepted = true
	if sent.After(h.sent) {
		h.sent = sent
	}
	if h.verdict == Dead && sent.After(h.judged) {
		h.verdict, h.judged, h.lost = Alive, time.Now(), false
	}
}

// quietLocked stops recording successes for a moment if nothing can be learned from them.
// While the credential is young, the routes that have accepted it must be known.
func (h *History) quietLocked(now time.Time, r Route) {
	b := h.book
	switch {
	case now.Sub(b.refused) < watchFor, now.Sub(b.refusing) < refusingMax, now.Sub(h.used) > sampleEvery:
	case h.youngLocked(now):
		noted := r
		if h.noted.Swap(&noted) == nil {
			time.AfterFunc(sampleEvery, func() { h.noted.Store(nil) })
		}
	case !h.quiet.Swap(true):
		time.AfterFunc(sampleEvery, func() { h.quiet.Store(false) })
	}
}

// loudLocked records all successes again.
func (h *History) loudLocked() {
	h.quiet.Store(false)
	h.noted.Store(nil)
}

func (h *History) youngLocked(now time.Time) bool {
	return h.from == Issued && !h.accepted && now.Sub(h.seen) < youngFor
}

// maxLent is how often a credential is lent without a refusal before it counts as
// accepted.
const maxLent = 2

// Lend records that the credential is given to a client that reports only refusals. A
// credential that is lent repeatedly without a refusal was accepted.
func (h *History) Lend() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	h.lent++
	if h.lent > maxLent {
		h.acceptLocked(time.Time{})
	}
}

// Refused records a 401. It returns the latest time at which the refused request was sent.
func (h *History) Refused(r Route, sent time.Time) time.Time {
	b, now := h.book, time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused = now
	for _, other := range b.histories {
		other.loudLocked()
	}
	h.loudLocked()
	h.lent = 0
	p := b.pathLocked(r, now)
	h.refusedLocked(now, p.accepted == h)
	if !p.unauthorized && p.accepted == h { // so the route checks credentials, and it has accepted this one
		h.acceptLocked(p.acceptedSent)
	}
	h.lost = h.lost || p.accepted == h
	p.unauthorized, p.refused = true, now
	if p.refusing {
		b.refusing = now
	}
	if sent.IsZero() {
		return now
	}
	return sent
}

// Describe fills in what is known about the credential, and about a request of a route that
// was sent at sent.
func (h *History) Describe(f *Facts, r Route, sent time.Time) {
	b, now := h.book, time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.findPathLocked(r.key())
	f.Fixed = h.from == Fixed
	f.RefusingPath = p != nil && p.refusing && !h.deadLocked()
	f.Young = h.youngLocked(now)
	f.Verified = -1
	if !h.verified.IsZero() {
		f.Verified = now.Sub(h.verified)
	}
	f.AcceptedSince = h.sent.After(sent)
	f.Used = !h.used.IsZero() && now.Sub(h.used) < usedFor
}

// WasUsed reports whether a request with the credential has succeeded.
func (h *History) WasUsed() bool {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return !h.used.IsZero()
}

// Known returns the latest verdict without asking the platform. It is Dead, or Alive if the
// platform accepted the credential within the last 10 s when it was asked, or otherwise
// Unknown. The verdict of a nil History is Unknown.
func (h *History) Known() Verdict {
	if h == nil {
		return Unknown
	}
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	switch {
	case h.deadLocked():
		return Dead
	case h.verdict != Dead && !h.verified.IsZero() && time.Since(h.verified) < refusingFor:
		return Alive
	default:
		return Unknown
	}
}

// deadLocked reports whether the platform calls the credential dead, and that verdict
// counts.
func (h *History) deadLocked() bool {
	return h.verdict == Dead && (h.believed || h.book.verifiable[h.cred.Kind()])
}

// RefusesAll records that a route has refused all resends of a request, although its
// credential is not known to be dead.
func (b *Book) RefusesAll(r Route) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.pathLocked(r, now).refusing = true
	b.refusing = now
}

// MayRenewUnproven reports whether a verdict that proves nothing may cause a renewal of
// the credential.
func (h *History) MayRenewUnproven() bool {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return h.renewing > 0 || h.book.mayRenewUnprovenLocked()
}

// RenewUnproven records a renewal of the credential that a verdict that proves nothing has
// caused. ok reports whether the renewal was still allowed. Call end when the renewal has
// ended: renewals that overlap count as one.
func (h *History) RenewUnproven() (end func(), ok bool) {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	if h.renewing == 0 && !h.book.useUnprovenLocked() {
		return nil, false
	}
	h.renewing++
	return func() {
		h.book.mu.Lock()
		defer h.book.mu.Unlock()
		h.renewing--
	}, true
}

func (b *Book) mayRenewUnprovenLocked() bool {
	n := len(b.unproven)
	return n < maxUnproven || time.Since(b.unproven[n-maxUnproven]) >= unprovenWindow
}

func (b *Book) useUnprovenLocked() bool {
	if !b.mayRenewUnprovenLocked() {
		return false
	}
	b.unproven = append(b.unproven[max(0, len(b.unproven)+1-maxUnproven):], time.Now())
	return true
}
