package agrenting

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
)

// watch adopts what other processes save, as soon as the store reports it. It
// begins with the first use of the key.
func (r *rotator) watch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watching || r.closed || !r.slot.Watched(r.ctx) {
		return
	}
	r.watching = true
	r.wg.Go(r.follow)
}

// quietWatch is for how long a store must have let itself be watched before its
// next failure is reported again.
const quietWatch = time.Minute

// follow takes note of all that the store reports.
func (r *rotator) follow() {
	failing, good := false, time.Time{} // since when it reports records
	for e, err := range r.slot.Follow(r.ctx) {
		if err == nil || errors.Is(err, ErrNoRecord) {
			if good.IsZero() {
				good = time.Now()
			}
			r.noticed(e)
			continue
		}
		r.mu.Lock()
		r.watched = false
		r.mu.Unlock()
		err = r.withoutKeys(err, record.Key{})
		if !failing || (!good.IsZero() && time.Since(good) >= quietWatch) {
			r.core.storeFailed("watch", err)
		}
		failing, good = true, time.Time{}
	}
}

// noticed takes note of a record, and wakes those that wait for another
// process.
func (r *rotator) noticed(e keyEntry) {
	rec := e.Body
	r.mu.Lock()
	r.watched = true
	close(r.news)
	r.news = make(chan struct{})
	rec = r.substitutedLocked(rec)
	newer := rec.Generation >= r.last.Body.Generation && !rec.Current.IsZero()
	if newer {
		e.Body = rec
		r.last = e
	}
	busy := r.flight != nil // it is woken by the news, and takes it up
	r.mu.Unlock()
	if newer && !busy {
		_ = r.takeUp(r.ctx, rec) // or by the next look at the store
	}
}

// takeUp adopts the key of a record that somebody else has written, if there is
// one in use that it replaces.
func (r *rotator) takeUp(ctx context.Context, rec record.Key) error {
	s := r.inUse()
	if s == nil || rec.Current.IsZero() || replaced(rec) {
		return nil
	}
	cur := rec.Current.Credential
	r.mu.Lock()
	done := r.unsaved != nil || s.cred.c.Equal(cur)
	if r.core.cfg.session != nil {
		done = done || r.given.IsZero() || r.given.Equal(cur)
	}
	r.mu.Unlock()
	if done {
		return nil
	}
	return r.change(ctx, rec.Current, renew.Adopted)
}

// change has requests use a key from now on.
func (r *rotator) change(ctx context.Context, k record.StoredKey, reason renew.Reason) error {
	err := r.adopt(ctx, k, reason)
	if err == nil && r.core.cfg.session != nil && !r.wasGiven(k.Credential) {
		// A renewal that was under way already was joined, and it had begun with
		// the key of before.
		err = r.adopt(ctx, k, reason)
	}
	return err
}

// awaitNews is closed at the next change that the store tells of.
func (r *rotator) awaitNews() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

// pause waits for d, or for news of the store, until the client is closed.
func (r *rotator) pause(ctx context.Context, d time.Duration, news, closing <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-news:
		return nil
	case <-closing:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// recheck is when the store is to be looked at again.
func (r *rotator) recheck() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched {
		return watchedRecheck
	}
	return storeRecheck
}
