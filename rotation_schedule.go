package agrenting

import (
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
)

// minKeyLife is the age before which no key is due on account of its end: else one
// that is said to live for moments would be rotated all the time.
const minKeyLife = time.Minute

// due reports whether the key should be rotated by itself.
func (r *rotator) due(rec record.Key) bool {
	at := r.dueAt(rec)
	return !at.IsZero() && !time.Now().Before(at)
}

// dueAt is when the key should be rotated, zero for never. The spread depends
// on the key alone: a restart does not roll the dice again, and all processes
// that share it agree.
func (r *rotator) dueAt(rec record.Key) time.Time {
	if !r.auto || rec.Current.IsZero() {
		return time.Time{}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(rec.Current.Credential.Fingerprint())) // never fails
	spread := float64(h.Sum64()>>11) / (1 << 53)
	life := r.policy.Every
	if k := rec.Current; k.Expires.After(k.Created) { // else its word is worth nothing
		life = min(life, max(k.Expires.Sub(k.Created)/5*4, minKeyLife))
	}
	return rec.Current.Created.Add(life - time.Duration(float64(life)*0.1*spread))
}

// minRetryEvery spaces attempts that found nothing to do.
const minRetryEvery = time.Second

// keyLeftShare is the share of what a key has left that a pause may take.
const keyLeftShare = 8

// schedule sets the timer for the record: for the day the key is due, or for
// the moment when a lease runs out whose holder may have died. It is called at
// every look at the store, so what it arms depends on points in time alone: a
// pause counted from now would be put off for ever.
func (r *rotator) schedule(e keyEntry) {
	rec := e.Body
	r.warnOfAge(rec)
	at := r.dueAt(rec)
	if rec.Intent != nil {
		at = time.Now().Add(r.busy(e))
	}
	if at.IsZero() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.flight != nil {
		return
	}
	pause := minRetryEvery
	if r.failed > 0 {
		pause = renew.Doubled(r.policy.RetryEvery, maxRetryEvery, r.failed)
	}
	if e := rec.Current.Expires; e.After(r.endedAt) { // there are to be attempts before it
		pause = max(minRetryEvery, min(pause, e.Sub(r.endedAt)/keyLeftShare))
	}
	if t := r.endedAt.Add(pause); t.After(at) {
		at = t
	}
	if r.timer != nil {
		r.timer.Stop()
	}
	r.timer = time.AfterFunc(max(0, time.Until(at)), func() { r.start(false) })
}

// warnOfAge reports, once per key, that a key is older than the platform
// recommends and nobody is going to rotate it.
func (r *rotator) warnOfAge(rec record.Key) {
	if r.auto || rec.Current.Created.IsZero() || time.Since(rec.Current.Created) < DefaultRotationInterval {
		return
	}
	fp := rec.Current.Credential.Fingerprint()
	r.mu.Lock()
	noted := r.oldNote == fp
	r.oldNote = fp
	r.mu.Unlock()
	if !noted {
		r.core.emitRotation(slog.LevelWarn, EventKeyOld, "the key is older than 90 days; rotate it, or set WithRotation", rec, nil)
	}
}
