package etcdstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

func record(generation uint64, secret string) agrenting.KeyRecord {
	return agrenting.KeyRecord{Generation: generation, Current: agrenting.StoredKey{
		Credential: agrenting.APIKey(secret), ID: "key-1", AgentID: "agent-1", Created: time.Now().Round(0),
	}}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]etcdstore.Option{
		"sealed": etcdstore.WithSealingKey(sealingKey), "plain": etcdstore.WithPlaintext(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
				t.Helper()
				id := unique(t)
				return func() agrenting.KeyStore {
					s, err := etcdstore.Open(etcdstore.Config{Endpoints: shared.endpoints(), Name: id}, opt)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, s.Close()) })
					return s
				}
			})
		})
	}
}

func TestSessionConformance(t *testing.T) {
	t.Parallel()
	storetest.TestSharedSessionStore(t, func(t *testing.T) func() agrenting.SessionStore {
		t.Helper()
		id := unique(t)
		return func() agrenting.SessionStore { return shared.open(t, id) }
	})
}

func TestWhatEtcdGetsIsSealed(t *testing.T) {
	t.Parallel()
	const secret = "agr_test_sealedsealedsealed"
	raw := shared.direct(t)
	look := func(name string) string {
		resp, err := raw.Get(t.Context(), "/agrenting/"+name+"/", clientv3.WithPrefix())
		require.NoError(t, err)
		require.Len(t, resp.Kvs, 1)
		return string(resp.Kvs[0].Value)
	}
	_, err := shared.open(t, "sealed").Save(t.Context(), record(1, secret), "")
	require.NoError(t, err)
	assert.NotContains(t, look("sealed"), secret)

	plain, err := etcdstore.New(raw, "plain", etcdstore.WithPlaintext())
	require.NoError(t, err)
	_, err = plain.Save(t.Context(), record(1, secret), "")
	require.NoError(t, err)
	assert.Contains(t, look("plain"), secret)

	_, _, err = shared.open(t, "plain").Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNotSealed)
	other, err := etcdstore.New(raw, "sealed", etcdstore.WithSealingKey(agrenting.NewSealingKey()))
	require.NoError(t, err)
	_, _, err = other.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrSealed)

	// From plain to sealed, and to another sealing key.
	sealed, err := agrenting.Sealed(plain, sealingKey)
	require.NoError(t, err)
	require.NoError(t, agrenting.Reseal(t.Context(), plain, sealed))
	assert.NotContains(t, look("plain"), secret)
	next := agrenting.NewSealingKey()
	both, err := etcdstore.New(raw, "plain", etcdstore.WithSealingKey(next, sealingKey))
	require.NoError(t, err)
	require.NoError(t, agrenting.Reseal(t.Context(), both, both))
	only, err := etcdstore.New(raw, "plain", etcdstore.WithSealingKey(next))
	require.NoError(t, err)
	rec, _, err := only.Load(t.Context())
	require.NoError(t, err)
	assert.Equal(t, secret, rec.Current.Credential.Reveal())
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	raw := shared.direct(t)
	seal := etcdstore.WithSealingKey(sealingKey)
	for name, bad := range map[string]func() (*etcdstore.Store, error){
		"no client":      func() (*etcdstore.Store, error) { return etcdstore.New(nil, "x", seal) },
		"no name":        func() (*etcdstore.Store, error) { return etcdstore.New(raw, "", seal) },
		"a name of two":  func() (*etcdstore.Store, error) { return etcdstore.New(raw, "a/b", seal) },
		"no sealing key": func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x") },
		"an empty sealing key": func() (*etcdstore.Store, error) {
			return etcdstore.New(raw, "x", etcdstore.WithSealingKey(agrenting.SealingKey{}))
		},
		"both":     func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x", seal, etcdstore.WithPlaintext()) },
		"timeout":  func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x", seal, etcdstore.WithTimeout(0)) },
		"lock ttl": func() (*etcdstore.Store, error) { return etcdstore.New(raw, "x", seal, etcdstore.WithLockTTL(1)) },
		"retention": func() (*etcdstore.Store, error) {
			return etcdstore.New(raw, "x", seal, etcdstore.WithSessionRetention(1))
		},
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
	_, err := shared.open(t, "x").LoadSession(t.Context(), "../../etc")
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}

func TestNothingPrintedIsSecret(t *testing.T) {
	t.Parallel()
	cfg := etcdstore.Config{Endpoints: shared.endpoints(), Name: "printed", Username: "u", Password: "hunter2secret"}
	s, err := etcdstore.Open(cfg, etcdstore.WithSealingKey(sealingKey), etcdstore.WithTimeout(500*time.Millisecond))
	require.NoError(t, err)
	defer s.Close()
	_, _, lerr := s.Load(t.Context())
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

func TestNamespacesAndPrefixesKeepStoresApart(t *testing.T) {
	t.Parallel()
	open := func(namespace string, opts ...etcdstore.Option) *etcdstore.Store {
		s, err := etcdstore.Open(etcdstore.Config{Endpoints: shared.endpoints(), Name: "apart", Namespace: namespace},
			append(opts, etcdstore.WithSealingKey(sealingKey))...)
		require.NoError(t, err)
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a, b, c := open("ns-a/"), open("ns-b/"), open("ns-a/", etcdstore.WithPrefix("/elsewhere/"))
	_, err := a.Save(t.Context(), record(1, "agr_test_apartapartapart"), "")
	require.NoError(t, err)
	for _, s := range []*etcdstore.Store{b, c} {
		_, _, err := s.Load(t.Context())
		require.ErrorIs(t, err, agrenting.ErrNoCredential)
	}
	for rec, err := range a.Watch(t.Context()) {
		require.NoError(t, err)
		assert.Equal(t, uint64(1), rec.Generation)
		break
	}
	unlock, err := a.LockSession(t.Context(), "ab")
	require.NoError(t, err)
	require.NoError(t, a.SaveSession(t.Context(), "ab", []byte("x")))
	unlock()
}

func TestForeignValuesAreRefusedUnharmed(t *testing.T) {
	t.Parallel()
	raw := shared.direct(t)
	s := shared.open(t, "foreign")
	for _, value := range []string{"", "no JSON", `{"format":2,"record":{}}`, `{"format":1,"write":"x","record":{"version":99}}`} {
		_, err := raw.Put(t.Context(), "/agrenting/foreign/record", value)
		require.NoError(t, err)
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
		require.NotErrorIs(t, err, agrenting.ErrNoCredential, "nothing may be planted over it")
		_, err = s.Save(t.Context(), record(1, "agr_test_foreignforeign"), "")
		require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
		for _, err := range s.Watch(t.Context()) {
			require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
			break
		}
	}
}

func TestADeadEtcdIsAnErrorInBoundedTime(t *testing.T) {
	t.Parallel()
	addr, err := freeAddr()
	require.NoError(t, err)
	silent, err := newProxy(addr)
	require.NoError(t, err)
	defer silent.close()
	silent.set(freeze)
	for name, endpoint := range map[string]string{"nobody listens": addr, "nobody answers": silent.addr()} {
		s, err := etcdstore.Open(etcdstore.Config{Endpoints: []string{"http://" + endpoint}, Name: "dead"},
			etcdstore.WithSealingKey(sealingKey), etcdstore.WithTimeout(400*time.Millisecond))
		require.NoError(t, err)
		for what, op := range map[string]func(ctx context.Context) error{
			"load": func(ctx context.Context) error { _, _, err := s.Load(ctx); return err },
			"save": func(ctx context.Context) error {
				_, err := s.Save(ctx, record(1, "agr_test_deaddeaddead"), "")
				return err
			},
			"lock":         func(ctx context.Context) error { _, err := s.LockSession(ctx, "ab"); return err },
			"load session": func(ctx context.Context) error { _, err := s.LoadSession(ctx, "ab"); return err },
			"save session": func(ctx context.Context) error { return s.SaveSession(ctx, "ab", nil) },
			"watch": func(ctx context.Context) error {
				for _, err := range s.Watch(ctx) {
					return err
				}
				return nil
			},
		} {
			began := time.Now()
			err := op(t.Context())
			require.ErrorIs(t, err, etcdstore.ErrUnavailable, "%s: %s", name, what)
			assert.Equal(t, what == "save", errors.Is(err, etcdstore.ErrUnknownOutcome), "%s: %s: %v", name, what, err)
			require.NotErrorIs(t, err, agrenting.ErrNoCredential)
			assert.Less(t, time.Since(began), 2*time.Second, "%s: %s", name, what)

			brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			began = time.Now()
			err = op(brief)
			cancel()
			if what != "watch" {
				require.ErrorIs(t, err, context.DeadlineExceeded)
			}
			assert.Less(t, time.Since(began), time.Second, "%s: %s: the caller's time goes before the store's", name, what)
		}
		require.NoError(t, s.Close())
	}
}

func TestCompactionDuringAWatch(t *testing.T) {
	t.Parallel()
	c := trio(t)
	raw := c.direct(t)
	s := c.open(t, "compacted", etcdstore.WithTimeout(3*time.Second))
	rev, err := s.Save(t.Context(), record(1, "agr_test_compactcompact"), "")
	require.NoError(t, err)

	watcher := c.open(t, "compacted", etcdstore.WithTimeout(3*time.Second))
	seen := make(chan uint64, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for rec, err := range watcher.Watch(ctx) {
			if err == nil {
				seen <- rec.Generation
			}
		}
	}()
	require.Equal(t, uint64(1), <-seen)

	// The watcher is cut off, and its place in the history is compacted away.
	for _, m := range c.members {
		m.proxy.set(refuse)
	}
	generation := uint64(1)
	inside, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + c.members[0].client}})
	require.NoError(t, err)
	defer inside.Close()
	near, err := etcdstore.New(inside, "compacted", etcdstore.WithSealingKey(sealingKey))
	require.NoError(t, err)
	for range 5 {
		generation++
		rev, err = near.Save(t.Context(), record(generation, "agr_test_compactcompact"), rev)
		require.NoError(t, err)
	}
	at, err := inside.Get(t.Context(), "none")
	require.NoError(t, err)
	_, err = inside.Compact(t.Context(), at.Header.Revision, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	for _, m := range c.members {
		m.proxy.set(pass)
	}
	await(t, seen, generation)
	// And on, with a compaction after each change.
	for range 3 {
		generation++
		rev, err = s.Save(t.Context(), record(generation, "agr_test_compactcompact"), rev)
		require.NoError(t, err)
		at, err := raw.Get(t.Context(), "none")
		require.NoError(t, err)
		if _, err = raw.Compact(t.Context(), at.Header.Revision); !errors.Is(err, rpctypes.ErrCompacted) {
			require.NoError(t, err)
		}
		await(t, seen, generation)
	}
	cancel()
	<-done
}

// await reads from seen until generation comes.
func await(t *testing.T, seen <-chan uint64, generation uint64) {
	t.Helper()
	for end := time.After(20 * time.Second); ; {
		select {
		case g := <-seen:
			require.LessOrEqual(t, g, generation)
			if g == generation {
				return
			}
		case <-end:
			t.Fatalf("generation %d was not seen", generation)
		}
	}
}
