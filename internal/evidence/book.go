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
	// youngFor is for how long a credential that the platform has issued may be unknown
	// to parts of it.
	youngFor = 4 * time.Second
	// usedFor is for how long a success makes it unlikely that the credential is dead.
	usedFor = time.Second
	// watchFor is for how long all responses are recorded after a 401, and refusingMax
	// for how long because of a path that refuses all requests.
	watchFor, refusingMax = 10 * time.Second, time.Minute
	// sampleEvery is how often a success is recorded at other times.
	sampleEvery = usedFor / 2
	// maxHistories bounds how many credentials are remembered.
	maxHistories = 8
	// maxUnproven is how many renewals verdicts that prove nothing may cause in
	// unprovenWindow.
	maxUnproven, unprovenWindow = 2, time.Minute
)

// Book has the evidence about the credentials of one client. It is safe for concurrent
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

	// quiet is set while there is nothing to record about a success, and noted while
	// there is nothing to record about one of this route.
	quiet atomic.Bool
	noted atomic.Pointer[Route]

	// The rest is guarded by book.mu.
	from         Provenance
	verdict      Verdict
	accepted     bool
	believed     bool // Dead counts, though the platform may refuse all credentials of this kind
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

// Provenance says where a credential is from.
type Provenance uint8

// The provenances.
const (
	Given  Provenance = iota // by the user, or issued long ago
	Fixed                    // by the user, and it cannot be replaced
	Issued                   // by the platform, as far as this process knows just now
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

// NeedsTime reports whether it matters when a request is sent.
func (h *History) NeedsTime() bool { return h != nil && !h.quiet.Load() && h.noted.Load() == nil }

// Succeeded records a response that is not a 401. sent is from Sending. accepted is set
// if the response shows that the platform accepts the credential, should the route check
// it, and success if it is a success.
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

// acceptLocked notes that the platform accepts the credential. A zero sent is long ago. A
// request that was sent before the credential was found dead does not bring it back.
func (h *History) acceptLocked(sent time.Time) {
	h.accepted = true
	if sent.After(h.sent) {
		h.sent = sent
	}
	if h.verdict == Dead && sent.After(h.judged) {
		h.verdict, h.judged, h.lost = Alive, time.Now(), false
	}
}

// quietLocked stops recording successes for a moment if there is nothing to learn. While
// the credential is young, it matters which routes have accepted it.
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

// Lend records that the credential is given to a client that reports refusals alone. One
// that is lent again and again was accepted.
func (h *History) Lend() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	h.lent++
	if h.lent > maxLent {
		h.acceptLocked(time.Time{})
	}
}

// Refused records a 401. It returns when the refused request was sent, at the latest.
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
	if !p.unauthorized && p.accepted == h { // so the route checks credentials, and accepted this one
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

// Describe fills in what is known about the credential and a request of a route that was
// sent at sent.
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

// Known returns the latest verdict without asking: Dead, Alive if the platform accepted the
// credential within the last 10 s when it was asked, and Unknown otherwise. That of a nil
// History is Unknown.
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

// deadLocked reports whether the platform calls the credential dead, and is believed.
func (h *History) deadLocked() bool {
	return h.verdict == Dead && (h.believed || h.book.verifiable[h.cred.Kind()])
}

// RefusesAll records that a route has refused all resends of a request whose credential
// is not known to be dead.
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

// RenewUnproven records a renewal of the credential because of a verdict that proves
// nothing. ok reports whether it was still allowed. Call end when the renewal has ended:
// renewals that overlap count as one.
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
