package etcdstore_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/etcdstore"
)

// lossy loses the responses of transactions that have taken effect.
type lossy struct {
	clientv3.KV

	lose atomic.Int64
	then func()
}

type lossyTxn struct {
	clientv3.Txn

	kv *lossy
}

func (k *lossy) Txn(ctx context.Context) clientv3.Txn { return &lossyTxn{k.KV.Txn(ctx), k} }

func (x *lossyTxn) If(c ...clientv3.Cmp) clientv3.Txn  { x.Txn = x.Txn.If(c...); return x }
func (x *lossyTxn) Then(o ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Then(o...); return x }
func (x *lossyTxn) Else(o ...clientv3.Op) clientv3.Txn { x.Txn = x.Txn.Else(o...); return x }

func (x *lossyTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := x.Txn.Commit()
	if err == nil && x.kv.lose.Add(-1) >= 0 {
		if x.kv.then != nil {
			x.kv.then()
		}
		return nil, context.DeadlineExceeded
	}
	return resp, err
}

func TestSaveRecognizesItsOwnValue(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]etcdstore.Option{
		"sealed": etcdstore.WithSealingKey(sealingKey), "plain": etcdstore.WithPlaintext(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := shared.direct(t)
			kv := &lossy{KV: raw.KV}
			raw.KV = kv
			s, err := etcdstore.New(raw, unique(t), opt)
			require.NoError(t, err)
			other, err := etcdstore.New(shared.direct(t), unique(t), opt)
			require.NoError(t, err)
			var rev agrenting.Revision
			for range 3 {
				kv.lose.Store(1)
				rev = save(t, s, "the same data", rev)
				_, now := load(t, other)
				assert.Equal(t, rev, now)
			}
			// Another writer replaces it before its outcome is known. It has the same
			// data, and is not mistaken for it.
			var theirs agrenting.Revision
			kv.then = func() {
				_, now := load(t, other)
				theirs = save(t, other, "the same data", now)
			}
			kv.lose.Store(1)
			_, err = s.Save(t.Context(), key, []byte("the same data"), rev)
			require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
			_, now := load(t, other)
			assert.Equal(t, theirs, now)
			// Another writer was first.
			kv.then = nil
			kv.lose.Store(1)
			_, err = s.Save(t.Context(), key, []byte("late"), rev)
			require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
			data, _ := load(t, other)
			assert.Equal(t, "the same data", data)
		})
	}
}

func TestLeaderIsKilledAndRestarted(t *testing.T) {
	t.Parallel()
	c := trio(t)
	s := c.open(t, "leader")
	seen := watched(t, c.open(t, "leader", etcdstore.WithTimeout(2*time.Second)))
	rev := save(t, s, "1", "")
	for n := range 2 {
		dead := c.leader()
		require.NotNil(t, dead)
		dead.kill()
		began := time.Now()
		rev = save(t, s, strconv.Itoa(n+2), rev)
		t.Logf("saved %v after the leader was killed", time.Since(began).Round(time.Millisecond))
		await(t, seen, strconv.Itoa(n+2))
		require.NoError(t, c.start(dead))
	}
}

func TestMinorityIsLost(t *testing.T) {
	t.Parallel()
	c := trio(t)
	s := c.open(t, "minority")
	rev := save(t, s, "1", "")
	c.others(c.leader())[0].kill()
	save(t, s, "2", rev)
	data, _ := load(t, s)
	assert.Equal(t, "2", data)
}

func TestMajorityIsLostAndReturns(t *testing.T) {
	t.Parallel()
	c := trio(t)
	s := c.open(t, "majority", etcdstore.WithTimeout(time.Second))
	seen := watched(t, c.open(t, "majority", etcdstore.WithTimeout(time.Second)))
	rev := save(t, s, "1", "")
	await(t, seen, "1")
	down := c.others(c.members[0])
	for _, m := range down {
		m.kill()
	}
	began := time.Now()
	_, err := s.Load(t.Context(), key)
	require.ErrorIs(t, err, etcdstore.ErrUnavailable)
	_, err = s.Save(t.Context(), key, []byte("2"), rev)
	require.ErrorIs(t, err, etcdstore.ErrUnavailable)
	assert.Less(t, time.Since(began), 5*time.Second)
	var wg sync.WaitGroup
	for _, m := range down {
		wg.Go(func() { assert.NoError(t, c.start(m)) })
	}
	wg.Wait()
	require.NotNil(t, c.leader())
	for range 100 {
		var rec agrenting.Record
		if rec, err = s.Load(t.Context(), key); err == nil {
			if _, err = s.Save(t.Context(), key, []byte("3"), rec.Revision); err == nil {
				break
			}
		}
		_ = pauseFor(t.Context(), 50*time.Millisecond)
	}
	require.NoError(t, err)
	await(t, seen, "3")
}

func TestSilentMemberIsAvoided(t *testing.T) {
	t.Parallel()
	c := trio(t)
	s := c.open(t, "silent", etcdstore.WithTimeout(4*time.Second))
	rev := save(t, s, "1", "")
	c.leader().proxy.Freeze() // for clients; the members reach each other
	began := time.Now()
	for n := range 3 {
		rev = save(t, s, strconv.Itoa(n+2), rev)
	}
	t.Logf("saved three times in %v while one member was silent", time.Since(began).Round(time.Millisecond))
	data, _ := load(t, s)
	assert.Equal(t, "4", data)
}

func TestWatchEndsWhenEveryConnectionIsLost(t *testing.T) {
	t.Parallel()
	c := trio(t)
	s := c.open(t, "lost", etcdstore.WithTimeout(time.Second))
	save(t, s, "1", "")
	var began time.Time
	var last error
	for _, err := range s.Watch(t.Context(), key) {
		require.NoError(t, last, "the sequence continues after an error")
		if last = err; err == nil {
			began = time.Now()
			for _, m := range c.members {
				m.proxy.Refuse()
			}
		}
	}
	require.ErrorIs(t, last, etcdstore.ErrUnavailable)
	assert.Less(t, time.Since(began), 10*time.Second)
}
