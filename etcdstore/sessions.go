package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
)

// ErrLockLost says that the lock of a session has expired under its holder, who
// could not reach etcd for too long. What was to be saved was not.
var ErrLockLost = errors.New("etcdstore: the lock of the session was lost")

type sessions struct {
	*database
	ttl, retention time.Duration
	tasks          tasks

	mu   sync.Mutex
	held map[string]*lock
}

func newSessions(db *database, ttl, retention time.Duration) *sessions {
	return &sessions{database: db, ttl: ttl, retention: retention, held: map[string]*lock{}}
}

func (s *sessions) record(id string) string { return s.root + "sessions/" + id }
func (s *sessions) locks(id string) string  { return s.root + "locks/" + id + "/" }

func checkID(id string) error {
	if id == "" || len(id) > 256 || strings.Trim(id, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: etcdstore: a session id is hexadecimal", agrenting.ErrInvalidOption)
	}
	return nil
}

func (s *sessions) load(ctx context.Context, id string) ([]byte, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	resp, err := s.get(ctx, "load session", s.record(id))
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0].Value, nil
}

// save writes the record if the lock, where there is one, is still held.
func (s *sessions) save(ctx context.Context, id string, sealed []byte) error {
	if err := checkID(id); err != nil {
		return err
	}
	lease, err := s.grant(ctx, "save session", s.retention)
	if err != nil {
		return err
	}
	s.mu.Lock()
	l := s.held[id]
	s.mu.Unlock()
	return s.try(ctx, "save session", func(ctx context.Context, _ bool) error {
		txn := s.client.Txn(ctx)
		if l != nil {
			txn = txn.If(clientv3.Compare(clientv3.CreateRevision(l.key), "=", l.revision))
		}
		resp, err := txn.Then(clientv3.OpPut(s.record(id), string(sealed), clientv3.WithLease(lease))).Commit()
		switch {
		case err != nil:
			return writeError(err)
		case !resp.Succeeded:
			return &storeError{ErrLockLost, "etcd could not be reached for longer than the lock lasts"}
		}
		return nil
	})
}

// grant makes a lease. One whose answer was lost expires by itself.
func (s *sessions) grant(ctx context.Context, what string, ttl time.Duration) (clientv3.LeaseID, error) {
	var id clientv3.LeaseID
	err := s.try(ctx, what, func(ctx context.Context, _ bool) error {
		resp, err := s.client.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
		if err == nil {
			id = resp.ID
		}
		return writeError(err)
	})
	return id, err
}

// lock is a place in the queue for a session, and at its head the lock.
type lock struct {
	s        *sessions
	id       string
	lease    clientv3.LeaseID
	key      string
	revision int64 // at which the place was taken
	cancel   context.CancelFunc
	lost     chan struct{} // closed when the lease is
}

// lock waits for the lock. A place in the queue that expires while etcd is out of
// reach is taken anew: else all who wait would go on without the lock at once.
func (s *sessions) lock(ctx context.Context, id string) (func(), error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%v: lock session: %w", s, context.Cause(ctx))
		}
		unlock, err := s.queue(ctx, id)
		if !errors.Is(err, ErrLockLost) {
			return unlock, err
		}
	}
}

// queue takes a place in the queue, and waits for its turn.
func (s *sessions) queue(ctx context.Context, id string) (func(), error) {
	lease, err := s.grant(ctx, "lock session", s.ttl)
	if err != nil {
		return nil, err
	}
	l := &lock{s: s, id: id, lease: lease, key: s.locks(id) + strconv.FormatInt(int64(lease), 16), lost: make(chan struct{})}
	var kept context.Context
	kept, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if !s.tasks.start(func() { l.keep(kept) }) {
		l.cancel()
		return nil, fmt.Errorf("%v: lock session: %w", s, agrenting.ErrClosed)
	}
	if err := l.queue(ctx); err != nil {
		l.giveBack(kept)
		return nil, err
	}
	s.mu.Lock()
	s.held[id] = l
	s.mu.Unlock()
	return sync.OnceFunc(func() { l.unlock(kept) }), nil
}

// keep extends the lease until ctx ends or the lease has.
func (l *lock) keep(ctx context.Context) {
	every := max(l.s.ttl/3, 200*time.Millisecond)
	for sleep(ctx, every) == nil {
		attempt, cancel := context.WithTimeout(ctx, every)
		_, err := l.s.client.KeepAliveOnce(attempt, l.lease)
		cancel()
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			close(l.lost)
			return
		}
	}
}

// queue takes a place and waits until nobody is before it.
func (l *lock) queue(ctx context.Context) error {
	err := l.s.try(ctx, "lock session", func(ctx context.Context, _ bool) error {
		resp, err := l.s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(l.key), "=", 0)).
			Then(clientv3.OpPut(l.key, "", clientv3.WithLease(l.lease))).
			Else(clientv3.OpGet(l.key)).
			Commit()
		if err != nil {
			return writeError(err)
		}
		l.revision = resp.Header.Revision
		if !resp.Succeeded { // an earlier attempt took it
			l.revision = resp.Responses[0].GetResponseRange().Kvs[0].CreateRevision
		}
		return nil
	})
	for err == nil {
		var before string
		var at int64
		if before, at, err = l.before(ctx); before == "" || err != nil {
			return err
		}
		err = l.wait(ctx, before, at)
	}
	return err
}

// before is the place before this one, "" if there is none.
func (l *lock) before(ctx context.Context) (key string, at int64, err error) {
	err = l.s.try(ctx, "lock session", func(ctx context.Context, _ bool) error {
		next := append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(l.revision-1), clientv3.WithKeysOnly())
		resp, err := l.s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(l.key), "=", l.revision)).
			Then(clientv3.OpGet(l.s.locks(l.id), next...)).
			Commit()
		switch {
		case err != nil:
			return err
		case !resp.Succeeded:
			return &storeError{ErrLockLost, "the place in the queue has expired"}
		}
		key, at = "", resp.Header.Revision
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			key = string(kvs[0].Key)
		}
		return nil
	})
	return key, at, err
}

// lookAgain is how long a place in the queue waits to be told that the one
// before it is gone.
const lookAgain = 2 * time.Second

// wait returns when key may be gone.
func (l *lock) wait(ctx context.Context, key string, at int64) error {
	changes, stop := l.s.watch(ctx, key, clientv3.WithRev(at+1), clientv3.WithFilterPut())
	defer stop()
	look := time.NewTimer(jitter(lookAgain))
	defer look.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("%v: lock session: waiting for another process: %w", l.s, context.Cause(ctx))
	case <-l.lost:
		return fmt.Errorf("%w: %v: lock session: the place in the queue has expired", ErrLockLost, l.s)
	case change, ok := <-changes:
		if !ok || change.Err() != nil {
			return sleep(ctx, jitter(minPause))
		}
		return nil
	case <-look.C:
		return nil
	}
}

// unlockWait is how long an unlock waits for etcd. What takes longer goes on
// behind the caller's back.
const unlockWait = 250 * time.Millisecond

func (l *lock) unlock(ctx context.Context) {
	l.s.mu.Lock()
	if l.s.held[l.id] == l {
		delete(l.s.held, l.id)
	}
	l.s.mu.Unlock()
	done := l.giveBack(ctx)
	t := time.NewTimer(unlockWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// giveBack ends the lease, and the place with it. If etcd cannot be told, it
// finds out by itself.
func (l *lock) giveBack(kept context.Context) <-chan struct{} {
	l.cancel()
	done := make(chan struct{})
	started := l.s.tasks.start(func() {
		defer close(done)
		_ = l.s.try(context.WithoutCancel(kept), "unlock session", func(ctx context.Context, _ bool) error {
			_, err := l.s.client.Revoke(ctx, l.lease)
			if errors.Is(err, rpctypes.ErrLeaseNotFound) {
				return nil
			}
			return err
		})
	})
	if !started {
		close(done)
	}
	return done
}

// close waits until all locks are given back.
func (s *sessions) close() { s.tasks.close() }
