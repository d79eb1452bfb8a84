package pgstore_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
	"github.com/agrenting/agrenting-go/pgstore"
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

// eventually waits until a condition holds.
func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); <-time.After(10 * time.Millisecond) {
		require.True(t, time.Now().Before(end), what)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	for name, opts := range map[string][]pgstore.Option{
		"sealed listening": {pgstore.WithSealingKey(sealingKey), pgstore.WithListen(), pgstore.WithPollInterval(50 * time.Millisecond)},
		"plain polling":    {pgstore.WithPlaintext(), pgstore.WithPollInterval(50 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id, direct := unique(t), s.pool(t)
			open := func(t *testing.T, url string, more ...pgstore.Option) agrenting.Store {
				t.Helper()
				store, err := pgstore.Open(url, id, append(more, opts...)...)
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, store.Close()) })
				return store
			}
			storetest.Test(t, func(t *testing.T) agrenting.Store {
				t.Helper()
				return open(t, s.url(s.addr(), writer))
			}, storetest.Delete(func(t *testing.T, _ agrenting.Store, name string) {
				t.Helper()
				_, err := direct.Exec(t.Context(), "DELETE FROM "+table+" WHERE name = $1", id+"/"+name)
				require.NoError(t, err)
			}), storetest.Unreachable(func(t *testing.T) (agrenting.Store, func(), func()) {
				t.Helper()
				p, err := fleettest.NewProxy(s.addr())
				require.NoError(t, err)
				t.Cleanup(p.Close)
				return open(t, s.url(p.Addr(), writer), pgstore.WithTimeout(time.Second)), p.Refuse, p.Pass
			}), storetest.Gone(func(t *testing.T) agrenting.Store {
				t.Helper()
				return open(t, s.url(s.addr(), writer), pgstore.WithTable("dropped"))
			}), storetest.ReadOnly(func(t *testing.T) agrenting.Store {
				t.Helper()
				return open(t, s.url(s.addr(), reader))
			}))
		})
	}
}
