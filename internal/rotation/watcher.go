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
	// maxPoll is the longest pause between two loads of a record that another process is
	// working on. The pauses grow up to this limit. A watched store ends them early.
	maxPoll = 2 * time.Second
	// quietWatch is how long a store must have been watched without failure before its
	// next failure is reported again.
	quietWatch = time.Minute
)

// watcher follows the record if the store can be watched. For a store that sends
// notifications, this takes no goroutine.
type watcher struct {
	ledger *ledger
	tasks  *tasks
	report Report

	mu       sync.Mutex
	watching bool
	stop     func()        // stops the notifications of the store; nil if there are none
	watched  bool          // the store reports changes and has not failed
	news     chan struct{} // closed at the next change; nil if no caller waits for it
	loading  bool          // a goroutine loads the record because of a notification
	outdated bool          // a notification came after the latest load began

	// Only one goroutine at a time uses these fields.
	failing bool
	good    time.Time // when the store began to report records
}

func newWatcher(l *ledger, t *tasks, report Report) *watcher {
	return &watcher{ledger: l, tasks: t, report: report}
}

// watch starts to follow the record, once. It passes each record that is not older than
// the last one to changed.
func (w *watcher) watch(changed func(ctx context.Context, rec record.Key)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watching || w.tasks.isShut() {
		return
	}
	if w.stop = w.ledger.store.Notify(func() { w.notified(changed) }); w.stop != nil {
		w.watching, w.watched = true, true
		return
	}
	if w.ledger.store.Watched(w.tasks.ctx) {
		w.watching = w.tasks.start(func(ctx context.Context) { w.follow(ctx, changed) })
	}
}

// close stops the notifications.
func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop != nil {
		w.stop()
	}
}

// notified starts loads of the record, at least one after the latest notification.
func (w *watcher) notified(changed func(context.Context, record.Key)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakeLocked()
	w.outdated = true
	if !w.loading {
		w.loading = w.tasks.start(func(ctx context.Context) {
			for w.claim() {
				if e, err := w.ledger.store.Load(ctx); ctx.Err() == nil {
					w.take(ctx, e, err, changed)
				}
			}
		})
	}
}

// claim reports whether the record must be loaded.
func (w *watcher) claim() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loading, w.outdated = w.outdated, false
	return w.loading
}

func (w *watcher) follow(ctx context.Context, changed func(context.Context, record.Key)) {
	for e, err := range w.ledger.store.Follow(ctx) {
		w.take(ctx, e, err, changed)
	}
}

// take processes a report of the store.
func (w *watcher) take(ctx context.Context, e entry, err error, changed func(context.Context, record.Key)) {
	if err != nil && !lost(err) {
		w.mu.Lock()
		w.watched = false
		w.mu.Unlock()
		err = w.ledger.redact(err, record.Key{})
		if !w.failing || (!w.good.IsZero() && time.Since(w.good) >= quietWatch) {
			w.report.StoreFailed("watch", err)
		}
		w.failing, w.good = true, time.Time{}
		return
	}
	if w.good.IsZero() {
		w.good = time.Now()
	}
	rec, newer, sure := w.ledger.told(e, err)
	if !sure {
		_, _ = w.ledger.load(ctx, secret.Credential{}) // load reports what it finds
	}
	w.mu.Lock()
	w.watched = true
	w.wakeLocked()
	w.mu.Unlock()
	if newer {
		changed(ctx, rec)
	}
}

// wakeLocked wakes the callers of next.
func (w *watcher) wakeLocked() {
	if w.news != nil {
		close(w.news)
		w.news = nil
	}
}

// next returns a channel that is closed at the next change that the store reports.
func (w *watcher) next() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.news == nil {
		w.news = make(chan struct{})
	}
	return w.news
}

// recheck returns after which time the store must be loaded again while there is traffic.
func (w *watcher) recheck() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched {
		return watchedRecheck
	}
	return plainRecheck
}

// pause waits for d, or until news or closing is closed.
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
