package agrenting

import (
	"context"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

// watch adopts what other processes save, as soon as a store tells of it. It
// begins with the first use of the key.
func (r *rotator) watch() {
	w, ok := r.store.(KeyWatcher)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watching || r.closed {
		return
	}
	r.watching = true
	r.wg.Go(func() { r.followAll(w) })
}

// maxWatchPause is the longest pause before a store that does not let itself be
// watched is asked again. One that could be for as long is well, and so is
// reported when it fails again.
const maxWatchPause = time.Minute

func (r *rotator) followAll(w KeyWatcher) {
	told := false
	for n := 1; r.ctx.Err() == nil; n++ {
		began := time.Now()
		err := r.follow(w)
		told = told && time.Since(began) < maxWatchPause
		if err != nil && !told && r.ctx.Err() == nil {
			told = true
			r.core.storeFailed("watch", err)
		}
		r.mu.Lock()
		if r.watched {
			n = 1
		}
		r.watched = false
		r.mu.Unlock()
		if sleep(r.ctx, renew.Doubled(storeRecheck, maxWatchPause, n)) != nil {
			return
		}
	}
}

// follow takes note of all that a store tells, until it fails.
func (r *rotator) follow(w KeyWatcher) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = r.withoutKeys(panicked("the key store", p), KeyRecord{})
		}
	}()
	for rec, err := range w.Watch(r.ctx) {
		if err != nil {
			return r.withoutKeys(err, rec)
		}
		r.noticed(rec)
	}
	return nil
}

// noticed takes note of a record, and wakes those that wait for another
// process.
func (r *rotator) noticed(rec KeyRecord) {
	r.mu.Lock()
	r.watched = true
	close(r.news)
	r.news = make(chan struct{})
	rec = r.substitutedLocked(rec)
	newer := rec.Generation >= r.last.Generation && !rec.Current.IsZero()
	if newer {
		r.last = rec
	}
	busy := r.flight != nil // it is woken by the news, and takes it up
	r.mu.Unlock()
	if newer && !busy {
		_ = r.takeUp(r.ctx, rec) // or by the next look at the store
	}
}

// takeUp adopts the key of a record that somebody else has written, if there is
// one in use that it replaces.
func (r *rotator) takeUp(ctx context.Context, rec KeyRecord) error {
	s := r.inUse()
	if s == nil || rec.Current.IsZero() || rec.replaced() {
		return nil
	}
	cur := rec.Current.Credential
	r.mu.Lock()
	done := r.unsaved != nil || s.cred.Equal(cur)
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
func (r *rotator) change(ctx context.Context, k StoredKey, reason renew.Reason) error {
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

// pause waits for d, capped, or for news of the store, until the client is
// closed.
func (r *rotator) pause(ctx context.Context, d time.Duration, news, closing <-chan struct{}) error {
	limit := pollStore
	r.mu.Lock()
	if r.watched {
		limit = watchedPoll
	}
	r.mu.Unlock()
	t := time.NewTimer(min(d, limit))
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
