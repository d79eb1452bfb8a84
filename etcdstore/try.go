package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agrenting/agrenting-go"
)

// ErrUnavailable means that etcd did not respond in time, or has no leader.
var ErrUnavailable = errors.New("etcdstore: etcd is not available")

const (
	// firstAttempt is the part of the timeout that the first attempt may take. Each
	// further one may take twice as long as the one before, so that three silent
	// members cost half of the time, and one costs little.
	firstAttempt = 16
	minPause     = 20 * time.Millisecond
	maxPause     = 500 * time.Millisecond
)

// try calls f until it succeeds, fails for good, or the time is over. The client
// picks another member for each attempt.
func (r *records) try(ctx context.Context, what string, f func(ctx context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var last error
	limit := r.timeout / firstAttempt
	for pause := minPause; limited.Err() == nil; limit, pause = 2*limit, min(2*pause, maxPause) {
		attempt, stop := context.WithTimeout(limited, limit)
		err := f(attempt)
		stop()
		if err == nil || !transient(err) {
			return r.wrap(what, err)
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err // an error of etcd says more than a deadline
		}
		sleep(limited, jitter(pause))
	}
	switch {
	case ctx.Err() != nil && last == nil:
		return fmt.Errorf("%v: %s: %w", r, what, context.Cause(ctx))
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %v: %s: %w; last: %w", ErrUnavailable, r, what, context.Cause(ctx), last)
	default:
		return fmt.Errorf("%w: %v: %s: no success within %v: %w", ErrUnavailable, r, what, r.timeout, last)
	}
}

// wrap adds what was being done, and what can be done about it. The texts of etcd
// name keys, users and roles at most.
func (r *records) wrap(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		return fmt.Errorf("%v: %s: %w. The role of the etcd user needs readwrite on the prefix %q", r, what, err, r.root)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%v: %s: %w. Compact and defragment etcd, then disarm its alarm", r, what, err)
	case errors.Is(err, agrenting.ErrConflictingWrite):
		return err
	default:
		return fmt.Errorf("%v: %s: %w", r, what, err)
	}
}

// transient reports whether another attempt may help.
func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true // of the attempt; the loop checks the rest
	}
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return false
	}
	code := status.Code(err)
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = e.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal:
		return true
	default:
		return false
	}
}

// jitter varies d by up to a quarter.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2)) // #nosec G404 -- not a secret
}

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
