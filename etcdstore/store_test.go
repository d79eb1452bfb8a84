package etcdstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

// key is the name of a record.
const key = "key"

func save(t *testing.T, s agrenting.Store, data string, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), key, []byte(data), previous)
	require.NoError(t, err)
	return rev
}

func load(t *testing.T, s agrenting.Store) (string, agrenting.Revision) {
	t.Helper()
	rec, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	return string(rec.Data), rec.Revision
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]etcdstore.Option{
		"sealed": etcdstore.WithSealingKey(sealingKey), "plain": etcdstore.WithPlaintext(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, raw := unique(t), shared.direct(t)
			open := func(t *testing.T, endpoints []string, opts ...etcdstore.Option) agrenting.Store {
				t.Helper()
				s, err := etcdstore.Open(etcdstore.Config{Endpoints: endpoints, Name: id}, append(opts, opt)...)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, s.Close()) })
				return s
			}
			storetest.Test(t, func(t *testing.T) agrenting.Store {
				t.Helper()
				return open(t, shared.endpoints())
			}, storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
				t.Helper()
				_, err := raw.Delete(t.Context(), "/agrenting/"+id+"/"+name)
				require.NoError(t, err)
			}), storetest.Unreachable(func(t *testing.T) (agrenting.Store, func(), func()) {
				t.Helper()
				p, err := fleettest.NewProxy(shared.members[0].client)
				require.NoError(t, err)
				t.Cleanup(p.Close)
				s := open(t, []string{"http://" + p.Addr()}, etcdstore.WithTimeout(time.Second))
				return s, func() { p.Refuse() }, func() { p.Pass() }
			}))
		})
	}
}

func TestValuesAreSealed(t *testing.T) {
	t.Parallel()
	const secret = "agr_test_sealedsealedsealed"
	raw := shared.direct(t)
	look := func(name string) string {
		resp, err := raw.Get(t.Context(), "/agrenting/"+name+"/", clientv3.WithPrefix())
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
		return string(resp.Kvs[0].Value)
	}
	save(t, shared.open(t, "sealed"), secret, "")
	assert.NotContains(t, look("sealed"), secret)

	plain, err := etcdstore.New(raw, "plain", etcdstore.WithPlaintext())
	require.NoError(t, err)
	save(t, plain, secret, "")
	assert.Contains(t, look("plain"), secret)

	_, err = shared.open(t, "plain").Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNotSealed)
	other, err := etcdstore.New(raw, "sealed", etcdstore.WithSealingKey(agrenting.NewSealingKey()))
	require.NoError(t, err)
	_, err = other.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrSealed)

	// From plain to sealed, and to another sealing key.
	sealed, err := agrenting.Sealed(plain, "/agrenting/plain/", sealingKey)
	require.NoError(t, err)
	require.NoError(t, agrenting.Reseal(t.Context(), plain, sealed))
	assert.NotContains(t, look("plain"), secret)
	next := agrenting.NewSealingKey()
	both, err := etcdstore.New(raw, "plain", etcdstore.WithSealingKey(next, sealingKey))
	require.NoError(t, err)
	require.NoError(t, agrenting.Reseal(t.Context(), both, both))
	only, err := etcdstore.New(raw, "plain", etcdstore.WithSealingKey(next))
	require.NoError(t, err)
	data, _ := load(t, only)
	assert.Equal(t, secret, data)
}

func TestSealedRecordsAreBoundToTheirPlace(t *testing.T) {
	t.Parallel()
	raw := shared.direct(t)
	save(t, shared.open(t, "place-a"), "x", "")
	resp, err := raw.Get(t.Context(), "/agrenting/place-a/key")
	require.NoError(t, err)
	_, err = raw.Put(t.Context(), "/agrenting/place-b/key", string(resp.Kvs[0].Value))
	require.NoError(t, err)
	_, err = shared.open(t, "place-b").Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrSealed)
	require.ErrorContains(t, err, "/agrenting/place-b/")
}

func TestSealedRecordsAreBoundToTheirNamespace(t *testing.T) {
	t.Parallel()
	raw := shared.direct(t)
	in := func(prefix string) agrenting.Store {
		t.Helper()
		s, err := agrenting.Namespace(shared.open(t, "divided"), prefix)
		require.NoError(t, err)
		return s
	}
	save(t, in("a"), "x", "")
	resp, err := raw.Get(t.Context(), "/agrenting/divided/a.key")
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	for name, s := range map[string]agrenting.Store{"b.key": in("b"), "a.other": in("a"), key: shared.open(t, "divided")} {
		_, err = raw.Put(t.Context(), "/agrenting/divided/"+name, string(resp.Kvs[0].Value))
		require.NoError(t, err)
		_, err = s.Load(t.Context(), name[strings.LastIndexByte(name, '.')+1:])
		require.ErrorIs(t, err, agrenting.ErrSealed, name)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	raw := shared.direct(t)
	seal := etcdstore.WithSealingKey(sealingKey)
	for name, bad := range map[string]func() (*etcdstore.Store, error){
		"no client":      func() (*etcdstore.Store, error) { return etcdstore.New(nil, "x", seal) },
		"no name":        func() (*etcdstore.Store, error) { return etcdstore.New(raw, "", seal) },
		"a slash":        func() (*etcdstore.Store, error) { return etcdstore.New(raw, "a/b", seal) },
		"no sealing key": func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x") },
		"an empty sealing key": func() (*etcdstore.Store, error) {
			return etcdstore.New(raw, "x", etcdstore.WithSealingKey(agrenting.SealingKey{}))
		},
		"both":         func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x", seal, etcdstore.WithPlaintext()) },
		"timeout":      func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x", seal, etcdstore.WithTimeout(0)) },
		"prefix":       func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x", seal, etcdstore.WithPrefix("")) },
		"no endpoints": func() (*etcdstore.Store, error) { return etcdstore.Open(etcdstore.Config{Name: "x"}, seal) },
		"bad name": func() (*etcdstore.Store, error) {
			return etcdstore.Open(etcdstore.Config{Name: "/", Endpoints: shared.endpoints()}, seal)
		},
		"keep alive": func() (*etcdstore.Store, error) {
			return etcdstore.Open(etcdstore.Config{Name: "x", Endpoints: shared.endpoints(), KeepAlive: -1}, seal)
		},
	} {
		_, err := bad()
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, name)
	}
}

func TestPrintingShowsNoPassword(t *testing.T) {
	t.Parallel()
	cfg := etcdstore.Config{Endpoints: shared.endpoints(), Name: "printed", Username: "u", Password: "hunter2secret"}
	s, err := etcdstore.Open(cfg, etcdstore.WithSealingKey(sealingKey), etcdstore.WithTimeout(500*time.Millisecond))
	require.NoError(t, err)
	defer s.Close()
	_, lerr := s.Load(t.Context(), key)
	require.Error(t, lerr, "the server has no users")
	for _, v := range []any{cfg, &cfg, s, *s, lerr} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			assert.NotContains(t, fmt.Sprintf(verb, v), cfg.Password)
		}
		b, err := json.Marshal(v)
		require.NoError(t, err)
		assert.NotContains(t, string(b), cfg.Password)
	}
}

func TestNamespacesAndPrefixesSeparateStores(t *testing.T) {
	t.Parallel()
	open := func(namespace string, opts ...etcdstore.Option) *etcdstore.Store {
		s, err := etcdstore.Open(etcdstore.Config{Endpoints: shared.endpoints(), Name: "apart", Namespace: namespace},
			append(opts, etcdstore.WithSealingKey(sealingKey))...)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a, b, c := open("ns-a/"), open("ns-b/"), open("ns-a/", etcdstore.WithPrefix("/elsewhere/"))
	save(t, a, "x", "")
	for _, s := range []*etcdstore.Store{b, c} {
		_, err := s.Load(t.Context(), key)
		require.ErrorIs(t, err, agrenting.ErrNoRecord)
	}
	resp, err := shared.direct(t).Get(t.Context(), "ns-a//agrenting/apart/key")
	require.NoError(t, err)
	assert.Len(t, resp.Kvs, 1)
}

func TestForeignValuesAreRefusedAndLeftIntact(t *testing.T) {
	t.Parallel()
	raw := shared.direct(t)
	s := shared.open(t, "foreign")
	for at, values := range map[string][]string{
		key:      {"", "no record", "agrenting-record 2 without an end", "agrenting-record 3 x\ndata", `{"format":1,"write":"x","record":{}}`},
		"record": {`{"format":1,"write":"x","record":{}}`}, // of an older build
	} {
		for _, value := range values {
			path := "/agrenting/foreign/" + at
			_, err := raw.Put(t.Context(), path, value)
			require.NoError(t, err)
			check := func(err error) {
				t.Helper()
				require.ErrorIs(t, err, agrenting.ErrInvalidRecord)
				require.NotErrorIs(t, err, agrenting.ErrNoRecord, "or it would be filled again")
				require.ErrorContains(t, err, path)
			}
			_, err = s.Load(t.Context(), key)
			check(err)
			for _, err := range s.Watch(t.Context(), key) {
				check(err)
				break
			}
			if at == key {
				_, err = s.Save(t.Context(), key, []byte("x"), "")
				require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
			}
			resp, err := raw.Get(t.Context(), path)
			require.NoError(t, err)
			assert.Equal(t, value, string(resp.Kvs[0].Value))
			_, err = raw.Delete(t.Context(), path)
			require.NoError(t, err)
		}
	}
	_, err := s.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
}

func TestRecordNamesOfOlderBuilds(t *testing.T) {
	t.Parallel()
	s := shared.open(t, "named")
	_, err := s.Save(t.Context(), "record", []byte("x"), "")
	require.NoError(t, err)
	_, err = s.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
}

func TestDeadEtcdIsAnErrorInBoundedTime(t *testing.T) {
	t.Parallel()
	addr, err := freeAddr()
	require.NoError(t, err)
	silent, err := fleettest.NewProxy(addr)
	require.NoError(t, err)
	defer silent.Close()
	silent.Freeze()
	for name, endpoint := range map[string]string{"no listener": addr, "silent listener": silent.Addr()} {
		s, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{"http://" + endpoint}, Name: "dead"},
			etcdstore.WithSealingKey(sealingKey), etcdstore.WithTimeout(400*time.Millisecond))
		require.NoError(t, err)
		for what, op := range map[string]func(ctx context.Context) error{
			"load": func(ctx context.Context) error { _, err := s.Load(ctx, key); return err },
			"save": func(ctx context.Context) error { _, err := s.Save(ctx, key, nil, ""); return err },
			"watch": func(ctx context.Context) (err error) {
				n := 0
				for _, err = range s.Watch(ctx, key) {
					n++
				}
				assert.LessOrEqual(t, n, 1)
				return err
			},
		} {
			began := time.Now()
			err := op(t.Context())
			require.ErrorIs(t, err, etcdstore.ErrUnavailable, "%s: %s", name, what)
			require.NotErrorIs(t, err, agrenting.ErrNoRecord)
			assert.Less(t, time.Since(began), 2*time.Second, "%s: %s", name, what)

			brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			began = time.Now()
			err = op(brief)
			cancel()
			if what != "watch" {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			assert.Less(t, time.Since(began), time.Second, "%s: %s: the deadline of the caller comes first", name, what)
		}
		require.NoError(t, s.Close())
	}
}

func TestOpenWithPasswordNeedsEtcd(t *testing.T) {
	t.Parallel()
	addr, err := freeAddr()
	require.NoError(t, err)
	silent, err := fleettest.NewProxy(addr)
	require.NoError(t, err)
	defer silent.Close()
	silent.Freeze()
	for name, endpoint := range map[string]string{"no listener": addr, "silent listener": silent.Addr()} {
		cfg := etcdstore.Config{Endpoints: []string{"http://" + endpoint}, Name: "dead", Username: "u", Password: "hunter2secret"}
		began := time.Now()
		_, err := etcdstore.Open(cfg, etcdstore.WithSealingKey(sealingKey), etcdstore.WithTimeout(400*time.Millisecond))
		require.ErrorIs(t, err, etcdstore.ErrUnavailable, name)
		require.NotErrorIs(t, err, agrenting.ErrInvalidOption, name)
		assert.NotContains(t, err.Error(), cfg.Password)
		assert.Less(t, time.Since(began), 3*time.Second, "%s: within the timeout of the store", name)

		_, err = etcdstore.Open(cfg)
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, "%s: options are checked first", name)
		require.ErrorContains(t, err, "a sealing key is missing")
	}
}

func TestWatchSurvivesCompaction(t *testing.T) {
	t.Parallel()
	c := trio(t)
	raw := c.direct(t)
	s := c.open(t, "compacted", etcdstore.WithTimeout(3*time.Second))
	rev := save(t, s, "1", "")

	seen := watched(t, c.open(t, "compacted", etcdstore.WithTimeout(3*time.Second)))
	await(t, seen, "1")

	// The watcher is cut off, and its place in the history is compacted away.
	for _, m := range c.members {
		m.proxy.Refuse()
	}
	inside, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + c.members[0].client}, Logger: zap.NewNop()})
	require.NoError(t, err)
	defer inside.Close()
	near, err := etcdstore.New(inside, "compacted", etcdstore.WithSealingKey(sealingKey))
	require.NoError(t, err)
	for n := range 5 {
		rev = save(t, near, strconv.Itoa(n+2), rev)
	}
	at, err := inside.Get(t.Context(), "none")
	require.NoError(t, err)
	_, err = inside.Compact(t.Context(), at.Header.Revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	for _, m := range c.members {
		m.proxy.Pass()
	}
	await(t, seen, "6")
	// And later, with a compaction after each change.
	for n := range 3 {
		rev = save(t, s, strconv.Itoa(n+7), rev)
		at, err := raw.Get(t.Context(), "none")
		require.NoError(t, err)
		if _, err = raw.Compact(t.Context(), at.Header.Revision); !errors.Is(err, rpctypes.ErrCompacted) {
			require.NoError(t, err)
		}
		await(t, seen, strconv.Itoa(n+7))
	}
}

// watched watches the record until the test ends. It starts again after errors,
// as clients do.
func watched(t *testing.T, s *etcdstore.Store) <-chan string {
	t.Helper()
	seen := make(chan string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			var last error
			for rec, err := range s.Watch(ctx, key) {
				if last != nil {
					t.Errorf("Watch continues after the error %v", last)
				}
				switch {
				case err == nil:
					seen <- string(rec.Data)
				case !errors.Is(err, agrenting.ErrNoRecord):
					last = err
				}
			}
			_ = pauseFor(ctx, 20*time.Millisecond)
		}
	}()
	return seen
}

// pauseFor waits for d, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await reads from seen until data comes. Before it, smaller numbers may come.
func await(t *testing.T, seen <-chan string, data string) {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case got := <-seen:
			require.LessOrEqual(t, strings.Compare(got, data), 0, "%s after %s", got, data)
			if got == data {
				return
			}
		case <-end:
			t.Fatalf("the record %q was not seen", data)
		}
	}
}
