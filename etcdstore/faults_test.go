package etcdstore_test

import (
	"context"
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

// fleet is clients on a cluster of three, under load.
type fleet struct {
	*world
	c       *cluster
	clients []*agrenting.Client
	load    *load
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t), c: trio(t)}
	for range n {
		s := f.c.open(t, "fleet", etcdstore.WithTimeout(2*time.Second))
		client := f.client(t, s, f.policy(agrenting.Overlap), agrenting.WithSessionStore(s))
		require.NoError(t, call(t.Context(), client))
		f.clients = append(f.clients, client)
	}
	f.load = startLoad(t.Context(), 5*time.Millisecond, f.clients...)
	return f
}

// rotate tries until it works.
func (f *fleet) rotate(t *testing.T, c *agrenting.Client) {
	t.Helper()
	var err error
	for range 60 {
		if _, err = c.Rotate(t.Context()); err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Fatalf("no rotation: %v", err)
}

func TestALeaderIsKilledAndComesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.rotate(t, f.clients[0])
	for range 2 {
		dead := f.c.leader()
		require.NotNil(t, dead)
		dead.kill()
		began := time.Now()
		f.rotate(t, f.clients[1])
		t.Logf("rotated %v after the leader was killed", time.Since(began).Round(time.Millisecond))
		require.NoError(t, f.c.start(dead))
	}
	f.rotate(t, f.clients[2])
	f.load.stop(t)
	assert.Empty(t, staleKeys(f.world))
	rec, _, err := f.c.open(t, "fleet").Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, int64(rec.Generation)-1, f.srv.Stats().KeysCreated, "no rotation was made twice")
}

func TestAMinorityIsLost(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	f.c.others(f.c.leader())[0].kill()
	for _, c := range f.clients {
		_, err := c.Rotate(t.Context())
		require.NoError(t, err, "two of three are enough")
	}
	f.load.stop(t)
	assert.Empty(t, staleKeys(f.world))
}

func TestTheMajorityIsLostAndComesBack(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3)
	down := f.c.others(f.c.members[0])
	for _, m := range down {
		m.kill()
	}
	before := f.srv.Stats()
	began := time.Now()
	_, err := f.clients[0].Rotate(t.Context())
	var rerr *agrenting.RotationError
	require.ErrorAs(t, err, &rerr)
	require.ErrorIs(t, err, etcdstore.ErrUnavailable)
	assert.Equal(t, agrenting.StagePrepare, rerr.Stage)
	assert.Less(t, time.Since(began), 8*time.Second)
	<-time.After(time.Second) // of requests
	after := f.srv.Stats()
	assert.Equal(t, before.KeysCreated, after.KeysCreated, "nothing was created that could not be kept")
	assert.Equal(t, before.KeysRevoked, after.KeysRevoked)
	assert.Equal(t, before.Authenticates, after.Authenticates, "the session in memory is good")
	assert.Greater(t, after.Requests, before.Requests+20, "requests go on")
	var wg sync.WaitGroup
	for _, m := range down {
		wg.Go(func() { assert.NoError(t, f.c.start(m)) })
	}
	wg.Wait()
	f.rotate(t, f.clients[1])
	f.load.stop(t)
	assert.Empty(t, staleKeys(f.world))
}

func TestTheNetworkIsCutWithoutAWord(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2)
	silent := f.c.leader()
	silent.proxy.set(freeze) // to the clients; the members hear each other
	began := time.Now()
	f.rotate(t, f.clients[0])
	t.Logf("rotated in %v while one member was silent", time.Since(began).Round(time.Millisecond))
	for _, m := range f.c.members {
		m.proxy.set(freeze)
	}
	_, err := f.clients[0].Rotate(t.Context())
	require.ErrorIs(t, err, etcdstore.ErrUnavailable)
	<-time.After(500 * time.Millisecond)
	for _, m := range f.c.members {
		m.proxy.set(pass)
	}
	f.rotate(t, f.clients[0])
	f.load.stop(t)
	assert.Empty(t, staleKeys(f.world))
}

func TestAPausedHolderLosesItsLock(t *testing.T) {
	t.Parallel()
	c := trio(t)
	// The holder reaches etcd through a proxy of its own, so that it alone can
	// be cut off.
	own, err := newProxy(c.members[0].client)
	require.NoError(t, err)
	defer own.close()
	holder, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{"http://" + own.addr()}, Name: "paused"},
		etcdstore.WithSealingKey(sealingKey), etcdstore.WithLockTTL(time.Second), etcdstore.WithTimeout(4*time.Second))
	require.NoError(t, err)
	unlock, err := holder.LockSession(t.Context(), "ab")
	require.NoError(t, err)
	require.NoError(t, holder.SaveSession(t.Context(), "ab", []byte("first")))

	next := c.open(t, "paused", etcdstore.WithTimeout(10*time.Second))
	alive, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
	_, err = next.LockSession(alive, "ab")
	cancel()
	require.ErrorIs(t, err, context.DeadlineExceeded, "the lock of one who lives outlasts its lease")

	own.set(freeze)
	began := time.Now()
	second, err := next.LockSession(t.Context(), "ab")
	require.NoError(t, err)
	t.Logf("the lock of a silent holder was free after %v", time.Since(began).Round(time.Millisecond))
	require.NoError(t, next.SaveSession(t.Context(), "ab", []byte("second")))
	own.set(pass)
	require.ErrorIs(t, holder.SaveSession(t.Context(), "ab", []byte("late")), etcdstore.ErrLockLost)
	unlock()
	second()
	b, err := next.LoadSession(t.Context(), "ab")
	require.NoError(t, err)
	assert.Equal(t, "second", string(b))
	require.NoError(t, holder.Close())
}

// places waits until there are so many places in the queue for a lock, and gives
// their leases, the first one's first.
func places(t *testing.T, etcd *clientv3.Client, name string, n int) (leases []clientv3.LeaseID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for len(leases) != n || leases == nil {
		resp, err := etcd.Get(ctx, "/agrenting/"+name+"/", clientv3.WithPrefix(),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		require.NoError(t, err)
		leases = []clientv3.LeaseID{}
		for _, kv := range resp.Kvs {
			leases = append(leases, clientv3.LeaseID(kv.Lease))
		}
	}
	return leases
}

func TestWhoLosesItsPlaceInTheQueueTakesAnother(t *testing.T) {
	t.Parallel()
	c := trio(t)
	etcd := c.direct(t)
	holder, other := c.open(t, "queue"), c.open(t, "queue")
	first, err := holder.LockSession(t.Context(), "ab")
	require.NoError(t, err)
	defer first()
	unlock := make(chan func(), 1)
	go func() {
		second, err := other.LockSession(t.Context(), "ab")
		assert.NoError(t, err)
		unlock <- second
	}()
	lost := places(t, etcd, "queue", 2)[1]
	_, err = etcd.Revoke(t.Context(), lost) // as if etcd had not heard of it for its time
	require.NoError(t, err)
	again := places(t, etcd, "queue", 2)[1]
	assert.NotEqual(t, lost, again)
	assert.Empty(t, unlock, "the lock is held")
	first()
	second := <-unlock
	require.NotNil(t, second)
	second()
	places(t, etcd, "queue", 0)
}

// lossy loses the answers of transactions that have taken effect.
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

func TestASaveWhoseAnswerWasLostIsFoundAgain(t *testing.T) {
	t.Parallel()
	const secret = "agr_test_lostlostlostlost"
	raw := shared.direct(t)
	kv := &lossy{KV: raw.KV}
	raw.KV = kv
	s, err := etcdstore.New(raw, unique(t), etcdstore.WithSealingKey(sealingKey))
	require.NoError(t, err)
	other := shared.open(t, unique(t))
	var rev agrenting.Revision
	for generation := uint64(1); generation < 4; generation++ {
		kv.lose.Store(1)
		rev, err = s.Save(t.Context(), record(generation, secret), rev)
		require.NoError(t, err, "the write was there, and nobody came after it")
		_, now, err := other.Load(t.Context())
		require.NoError(t, err)
		assert.Equal(t, rev, now)
	}
	// Somebody comes after it, before it is looked for.
	overtake := func() {
		_, now, err := other.Load(t.Context())
		require.NoError(t, err)
		_, err = other.Save(t.Context(), record(99, secret), now)
		require.NoError(t, err)
	}
	kv.then = overtake
	kv.lose.Store(1)
	mine, err := s.Save(t.Context(), record(4, secret), rev)
	require.NoError(t, err, "it was written, and then overwritten")
	_, now, err := other.Load(t.Context())
	require.NoError(t, err)
	assert.NotEqual(t, mine, now)
	// Somebody came before it: a conflict, whatever was lost.
	kv.then = nil
	kv.lose.Store(1)
	_, err = s.Save(t.Context(), record(5, secret), mine)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	// And when the history is gone, nobody knows.
	kv.then = func() {
		overtake()
		at, err := raw.Get(t.Context(), "none")
		require.NoError(t, err)
		_, err = raw.Compact(t.Context(), at.Header.Revision)
		require.NoError(t, err)
	}
	kv.lose.Store(1)
	_, err = s.Save(t.Context(), record(6, secret), now)
	require.ErrorIs(t, err, etcdstore.ErrUnknownOutcome)
	require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
}
