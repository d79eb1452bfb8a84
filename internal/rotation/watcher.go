package rotation

import (
	"context"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

const (
	// watchedRecheck is how often a store that can be watched is loaded while there is
	// traffic.
	watchedRecheck = 30 * time.Second
	// maxPoll is the longest pause between two loads of a record on which another
	// process is at work. The pauses grow up to it; a watched store ends them early.
	maxPoll = 2 * time.Second
	// quietWatch is for how long a store must have let itself be watched before its
	// next failure is reported again.
	quietWatch = time.Minute
)

// watcher follows the record, if the store can be watched.
type watcher struct {
	ledger *ledger
	tasks  *tasks
	report Report

	mu       sync.Mutex
	watching bool
	watched  bool          // the store reports changes, and has not failed to
	news     chan struct{} // closed at the next change
}

func newWatcher(l *ledger, t *tasks, report Report) *watcher {
	return &watcher{ledger: l, tasks: t, report: report, news: make(chan struct{})}
}

// watch begins to follow the record, once. Each record that is not older than what
// was seen is passed to changed.
func (w *watcher) watch(changed func(ctx context.Context, rec record.Key)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.watching && w.ledger.store.Watched(w.tasks.ctx) {
		w.watching = w.tasks.start(func(ctx context.Context) { w.follow(ctx, changed) })
	}
}

func (w *watcher) follow(ctx context.Context, changed func(context.Context, record.Key)) {
	failing, good := false, time.Time{} // since when it reports records
	for e, err := range w.ledger.store.Follow(ctx) {
		if err != nil && !lost(err) {
			w.mu.Lock()
			w.watched = false
			w.mu.Unlock()
			err = w.ledger.redact(err, record.Key{})
			if !failing || (!good.IsZero() && time.Since(good) >= quietWatch) {
				w.report.StoreFailed("watch", err)
			}
			failing, good = true, time.Time{}
			continue
		}
		if good.IsZero() {
			good = time.Now()
		}
		rec, newer, sure := w.ledger.told(e, err)
		if !sure {
			_, _ = w.ledger.load(ctx, secret.Credential{}) // it reports what it finds
		}
		w.mu.Lock()
		w.watched = true
		close(w.news)
		w.news = make(chan struct{})
		w.mu.Unlock()
		if newer {
			changed(ctx, rec)
		}
	}
}

// next is closed at the next change that the store reports.
func (w *watcher) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.news
}

// recheck returns when the store must be loaded again while there is traffic.
func (w *watcher) recheck() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched {
		return watchedRecheck
	}
	return plainRecheck
}

// pause waits for d, for news, or until closing is closed.
func pause(ctx context.Context, d time.Duration, news, closing <-chan struct{}) error {
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
