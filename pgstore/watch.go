package pgstore

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/agrenting/agrenting-go"
)

const (
	// listenPolls is how many intervals of polling pass between two loads while
	// LISTEN works.
	listenPolls = 10
	// maxListenPause is the longest pause between two attempts to listen.
	maxListenPause = 10 * time.Second
)

// errPooler means that LISTEN has no effect.
var errPooler = errors.New("pgstore: the connection goes through a pooler, which does not support LISTEN")

// Watch loads the record when it may have changed: after a notification, after
// notifications may have been lost, and at an interval.
func (r *records) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return func(yield func(agrenting.Record, error) bool) {
		changed, unsubscribe := r.listener.subscribe(r.row(name))
		defer unsubscribe()
		const missing = "missing" // is not a revision
		var seen agrenting.Revision
		for ctx.Err() == nil {
			load, done := withGrace(ctx)
			rec, err := r.Load(load, name)
			done()
			now := rec.Revision
			if errors.Is(err, agrenting.ErrNoRecord) {
				now = missing
			}
			switch {
			case ctx.Err() != nil:
				return
			case now == "":
				yield(agrenting.Record{}, err)
				return
			case now != seen && !yield(rec, err):
				return
			}
			seen = now
			r.await(ctx, changed)
		}
	}
}

// cancelGrace is how long a load may continue after the end of a watch.
const cancelGrace = 250 * time.Millisecond

// withGrace returns a context that ends a moment after ctx. pgx closes the connection of a
// canceled query, in the background and for up to 15 s. A load in flight usually ends
// first, and its connection can be used again.
func withGrace(ctx context.Context) (longer context.Context, done func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(cancelGrace, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// await waits until a record may have changed, or until ctx ends.
func (r *records) await(ctx context.Context, changed <-chan struct{}) {
	d := r.poll
	if r.listener.active() {
		d *= listenPolls
	}
	timer := time.NewTimer(jitter(d))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// listener receives the notifications of a store on a separate connection. The
// connection is made when something is watched, and kept until stop. A nil listener
// notifies of nothing.
type listener struct {
	records *records
	cancel  context.CancelFunc
	done    chan struct{}
	wanted  chan struct{} // closed by the first subscription
	works   atomic.Bool

	mu          sync.Mutex
	subscribers map[chan struct{}]string // the row of each
}

func startListener(r *records) *listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{
		records: r, cancel: cancel, done: make(chan struct{}), wanted: make(chan struct{}),
		subscribers: map[chan struct{}]string{},
	}
	go l.run(ctx)
	return l
}

func (l *listener) stop() {
	if l != nil {
		l.cancel()
		<-l.done
	}
}

// active reports whether changes are being notified.
func (l *listener) active() bool { return l != nil && l.works.Load() }

// subscribe returns a channel that gets a value when the row may have changed.
func (l *listener) subscribe(row string) (changed <-chan struct{}, unsubscribe func()) {
	if l == nil {
		return nil, func() {}
	}
	c := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.wanted:
	default:
		close(l.wanted)
	}
	l.subscribers[c] = row
	return c, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscribers, c)
	}
}

// notify wakes the subscribers of a row, or all if row is empty.
func (l *listener) notify(row string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, of := range l.subscribers {
		if row == "" || row == of {
			select {
			case c <- struct{}{}:
			default: // it has not yet handled the last one
			}
		}
	}
}

// run listens until ctx ends. When the connection is lost and when it is there again,
// all records may have changed.
func (l *listener) run(ctx context.Context) {
	defer close(l.done)
	select {
	case <-l.wanted:
	case <-ctx.Done():
	}
	for pause := minPause; ctx.Err() == nil; pause = min(2*pause, maxListenPause) {
		err := l.listen(ctx)
		if l.works.Swap(false) {
			pause = minPause
			l.notify("")
		}
		if errors.Is(err, errPooler) {
			pause = maxListenPause
		}
		sleep(ctx, jitter(pause))
	}
}

// listen passes notifications on until the connection is lost.
func (l *listener) listen(ctx context.Context) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(ending)
	}()
	if err := l.bounded(ctx, func(ctx context.Context) error {
		_, err := conn.Exec(ctx, "LISTEN "+channel)
		return err
	}); err != nil {
		return err
	}
	l.works.Store(true)
	l.notify("")
	for {
		waiting, cancel := context.WithTimeout(ctx, listenPolls*l.records.poll)
		n, err := conn.WaitForNotification(waiting)
		idle := waiting.Err() != nil
		cancel()
		switch {
		case err == nil && n == nil:
			l.notify("") // the pool has its own handler, which got the notification
		case err == nil:
			l.notify(n.Payload)
		case idle && ctx.Err() == nil:
			if err := l.bounded(ctx, conn.Ping); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// connect takes a connection out of the pool for good, so that the pool can replace
// it.
func (l *listener) connect(ctx context.Context) (conn *pgx.Conn, err error) {
	err = l.bounded(ctx, func(ctx context.Context) error {
		pooled, err := l.records.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		var pid uint32
		if err := pooled.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeExec).Scan(&pid); err != nil {
			pooled.Release()
			return err
		}
		if pid != pooled.Conn().PgConn().PID() {
			pooled.Release()
			return errPooler
		}
		conn = pooled.Hijack()
		return nil
	})
	return conn, err
}

// bounded gives f as much time as an operation has.
func (l *listener) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, l.records.timeout)
	defer cancel()
	return f(ctx)
}
