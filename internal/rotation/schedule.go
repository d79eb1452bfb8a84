package rotation

import (
	"hash/fnv"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
)

const (
	// minKeyLife is the age before which a key is not due because of its expiry.
	// Otherwise, a key with a very short life would be rotated all the time.
	minKeyLife = time.Minute
	// minRetryEvery is the shortest time between attempts that found nothing to do.
	minRetryEvery = time.Second
	maxRetryEvery = 6 * time.Hour
	// keyLeftShare is the share of a key's remaining life that a pause may take.
	keyLeftShare = 8
)

// dueAt returns when a key should be rotated; zero means never. The jitter depends only
// on the key, so a restart does not change it, and all processes agree on it.
func dueAt(rec record.Key, every time.Duration) time.Time {
	if every <= 0 || rec.Current.IsZero() {
		return time.Time{}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(rec.Current.Credential.Fingerprint())) // never fails
	jitter := float64(h.Sum64()>>11) / (1 << 53)
	life := every
	if k := rec.Current; k.Expires.After(k.Created) { // otherwise, the expiry is not credible
		life = min(life, max(k.Expires.Sub(k.Created)/5*4, minKeyLife))
	}
	return rec.Current.Created.Add(life - time.Duration(float64(life)*0.1*jitter))
}

// credible returns a key with times that are possible by the local clock. If a key was
// stored while a clock was far ahead, its creation time becomes the time at which this
// process first saw it, or now.
func credible(k, known record.StoredKey, every time.Duration) record.StoredKey {
	if every <= 0 {
		every = Recommended
	}
	now, life := wallNow(), k.Expires.Sub(k.Created)
	created := now
	if known.Credential.Equal(k.Credential) && known.Created.Before(now) {
		created = known.Created
	}
	if k.Created.Sub(now) <= min(maxCreatedOff, every/10) {
		return k
	}
	k.Created = created
	if !k.Expires.IsZero() && life > 0 {
		k.Expires = created.Add(life)
	}
	return k
}

// due reports whether a key should be rotated now.
func due(rec record.Key, every time.Duration, now time.Time) bool {
	at := dueAt(rec, every)
	return !at.IsZero() && !now.Before(at)
}

// schedule sets a timer for the next attempt, and delays attempts after failures.
type schedule struct {
	every, retryEvery time.Duration
	fire              func()

	mu      sync.Mutex
	timer   *time.Timer
	next    time.Time // when the timer fires
	running bool
	closed  bool
	failed  int       // consecutive failed attempts
	endedAt time.Time // the end of the last attempt
	lastErr error
}

// arm sets the timer for a record. busy is how long another process may be working on
// it. arm is called after every load of the store, so the time must depend only on fixed
// points in time: a pause that starts now would never end.
func (s *schedule) arm(rec record.Key, busy time.Duration) {
	at := dueAt(rec, s.every)
	if rec.Intent != nil {
		at = time.Now().Add(busy)
	}
	if at.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.running {
		return
	}
	pause := minRetryEvery
	if s.failed > 0 {
		pause = renew.Doubled(s.retryEvery, maxRetryEvery, s.failed)
	}
	if e := rec.Current.Expires; e.After(s.endedAt) { // there must be time for attempts before the key expires
		pause = max(minRetryEvery, min(pause, e.Sub(s.endedAt)/keyLeftShare))
	}
	if t := s.endedAt.Add(pause); t.After(at) {
		at = t
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	s.next = at
	s.timer = time.AfterFunc(max(0, time.Until(at)), s.fire)
}

// begun and ended are called around each attempt.
func (s *schedule) begun() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = true
}

func (s *schedule) ended(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.lastErr, s.endedAt = false, err, time.Now()
	if err != nil {
		s.failed++
	} else {
		s.failed = 0
	}
}

// pausing returns until when the next attempt has to wait, and the error of the last
// attempt.
func (s *schedule) pausing() (until time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until = s.endedAt.Add(renew.Doubled(minRetryEvery, s.retryEvery, s.failed))
	if s.lastErr == nil || !time.Now().Before(until) {
		return time.Time{}, nil
	}
	return until, s.lastErr
}

func (s *schedule) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
