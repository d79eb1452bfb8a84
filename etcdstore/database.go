package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agrenting/agrenting-go"
)

// ErrUnavailable says that etcd did not answer in time, or has no leader.
var ErrUnavailable = errors.New("etcdstore: etcd is not available")

// ErrUnknownOutcome says that it is not known whether a write has taken effect:
// its answer was lost, and etcd could not be asked again. Load tells.
var ErrUnknownOutcome = errors.New("etcdstore: it is not known whether etcd has taken the write")

// database is the client, with time limits and attempts.
type database struct {
	client  *clientv3.Client
	name    string
	root    string // of all keys
	timeout time.Duration
}

func (d *database) String() string { return "etcdstore(" + d.name + ")" }

const (
	// attempts is how many silent members an operation survives.
	attempts = 4
	minPause = 20 * time.Millisecond
	maxPause = 500 * time.Millisecond
)

// try calls f until it succeeds, fails for good, or the time is over. The client
// picks another member for each attempt. unsure tells f that an earlier attempt
// may have had its effect.
func (d *database) try(ctx context.Context, what string, f func(ctx context.Context, unsure bool) error) error {
	limited, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var last error
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		if err := limited.Err(); err != nil {
			return d.failed(ctx, what, last)
		}
		attempt, stop := context.WithTimeout(limited, d.timeout/attempts)
		err := f(attempt, last != nil)
		stop()
		if err == nil || !transient(err) {
			return d.wrap(what, err)
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err // what etcd says is worth more than that it says nothing
		}
		if sleep(limited, jitter(pause)) != nil {
			return d.failed(ctx, what, last)
		}
	}
}

// failed is the error of an operation whose time is over.
func (d *database) failed(ctx context.Context, what string, last error) error {
	switch {
	case ctx.Err() != nil && last == nil:
		return fmt.Errorf("%v: %s: %w", d, what, context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %v: %s: %w; last: %w", ErrUnavailable, d, what, context.Cause(ctx), last)
	default:
		return fmt.Errorf("%w: %v: %s: no success within %v: %w", ErrUnavailable, d, what, d.timeout, last)
	}
}

// wrap says what was being done, and what can be done about it. The texts of
// etcd name keys, users and roles at the most.
func (d *database) wrap(what string, err error) error {
	var own *storeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return fmt.Errorf("%w: %v: %s: %s", own.kind, d, what, own.text)
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%v: %s: %w; the role of the etcd user needs readwrite on the prefix %q", d, what, err, d.root)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%v: %s: %w; compact and defragment etcd, then disarm its alarm", d, what, err)
	default:
		return fmt.Errorf("%v: %s: %w", d, what, err)
	}
}

// storeError is an outcome that etcd has no word for.
type storeError struct {
	kind error
	text string
}

func (e *storeError) Error() string { return e.text }

// transient reports whether another attempt may help.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true // of the attempt; the loop looks after the rest
	}
	var own *storeError
	if errors.As(err, &own) || errors.Is(err, rpctypes.ErrNoSpace) {
		return false
	}
	switch codeOf(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	default:
		return false
	}
}

func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code()
	}
	return status.Code(err)
}

// get reads, linearizably.
func (d *database) get(ctx context.Context, what, key string) (*clientv3.GetResponse, error) {
	var resp *clientv3.GetResponse
	err := d.try(ctx, what, func(ctx context.Context, _ bool) error {
		var err error
		resp, err = d.client.Get(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// writeError tells of a write that etcd refuses for good.
func writeError(err error) error {
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		return fmt.Errorf("%w: %w", agrenting.ErrReadOnlyStore, err)
	}
	return err
}

// jitter is d, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2)) //nolint:gosec // no secret
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch follows keys. stop leaves nothing behind: a watcher is made for the
// purpose, unless the caller's client has one with a namespace, because a shared
// one keeps the stream of a watch that was cancelled before it had begun.
func (d *database) watch(ctx context.Context, key string, opts ...clientv3.OpOption) (events clientv3.WatchChan, stop func()) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	w := clientv3.NewWatcher(d.client)
	own := reflect.TypeOf(w) == reflect.TypeOf(d.client.Watcher)
	if !own {
		w = d.client.Watcher
	}
	events = w.Watch(ctx, key, opts...)
	return events, func() {
		cancel()
		if own {
			_ = w.Close() // tells what its streams died of
		}
	}
}
