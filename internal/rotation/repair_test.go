package rotation_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func owned(w *sdktest.RotationWorld, s agrenting.Strategy) agrenting.RotationPolicy {
	return agrenting.RotationPolicy{
		Strategy: s, Every: -1, KeyID: w.Key.ID, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret)),
	}
}

// copyOf is a memory store with the records that a store has now.
func copyOf(t *testing.T, s agrenting.Store) agrenting.Store {
	t.Helper()
	rec, err := s.Load(t.Context(), record.KeyName)
	require.NoError(t, err)
	set := agrenting.MemoryStore()
	_, err = set.Save(t.Context(), record.KeyName, rec.Data, "")
	require.NoError(t, err)
	return set
}

// The store is restored from a backup whose key is dead while no process runs, or the
// initial key is dead. The owner issues a key, and no request fails.
func TestOwnerReplacesDeadKeyOfStore(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap, 0} {
		for name, prepare := range map[string]func(t *testing.T, w *sdktest.RotationWorld) agrenting.Store{
			"backup of before a rotation": func(t *testing.T, w *sdktest.RotationWorld) agrenting.Store {
				t.Helper()
				store := agrenting.MemoryStore()
				c := w.Client(store, owned(w, s))
				require.NoError(t, w.Call(c))
				backup := copyOf(t, store)
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				require.NoError(t, c.Close())
				return backup
			},
			"revoked in the dashboard": func(t *testing.T, w *sdktest.RotationWorld) agrenting.Store {
				t.Helper()
				store := agrenting.MemoryStore()
				c := w.Client(store, owned(w, s))
				require.NoError(t, w.Call(c))
				require.NoError(t, c.Close())
				w.Server.RevokeKey(w.Key.ID)
				return store
			},
			"empty store and a dead initial key": func(_ *testing.T, w *sdktest.RotationWorld) agrenting.Store {
				w.Server.RevokeKey(w.Key.ID)
				return agrenting.MemoryStore()
			},
		} {
			for _, session := range []bool{false, true} {
				if session {
					name += ", with sessions"
				}
				t.Run(s.String()+", "+name, func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := sdktest.NewRotationWorld(t)
						store := prepare(t, w)
						sdktest.Advance(10 * time.Minute) // a key that was issued lately is not believed to be dead at once
						var opts []agrenting.Option
						if session {
							opts = append(opts, agrenting.WithSession())
						}
						clients := []*agrenting.Client{w.Client(store, owned(w, s), opts...), w.Client(store, owned(w, s), opts...)}
						w.Server.ResetLog()
						for range 100 {
							for _, c := range clients {
								require.NoError(t, w.Call(c))
							}
							sdktest.Advance(100 * time.Millisecond)
						}
						rec, _, err := sdktest.LoadRecord(t.Context(), store)
						require.NoError(t, err)
						assert.True(t, w.Server.KeyAlive(rec.Current.Credential.Reveal()))
						assert.Equal(t, 1, w.Server.Count("POST /api/v1/agents/{id}/credentials"), "one key is issued, whatever the number of processes")
						for _, c := range clients {
							require.NoError(t, c.Close())
						}
					})
				})
			}
		}
	}
}

func TestTwoStoresForOneKey(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				a, b := w.Client(agrenting.MemoryStore(), owned(w, s)), w.Client(agrenting.MemoryStore(), owned(w, s))
				both := func() {
					t.Helper()
					for range 30 {
						require.NoError(t, w.Call(a))
						require.NoError(t, w.Call(b))
						sdktest.Advance(time.Second)
					}
				}
				both()
				for _, c := range []*agrenting.Client{a, b, a} {
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
					both()
					sdktest.Advance(2 * time.Minute)
				}
				assert.Len(t, w.Server.LiveKeys(w.Agent.ID), 2, "one for each store")
			})
		})
	}
}

// Without an owner there is no successor, so the caller gets the 401. With one that may
// not create keys, the error says so.
func TestDeadKeyWithoutReplacement(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		owner bool
		want  error
	}{
		"no owner":      {want: agrenting.ErrUnauthorized},
		"owner refused": {owner: true, want: agrenting.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				p := agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace}
				if tc.owner {
					p.Owner = agrenting.Static(agrenting.UserToken("ap_0123456789abcdef0123456789abcdef"))
				}
				c := w.Client(agrenting.MemoryStore(), p)
				require.NoError(t, w.Call(c))
				w.Server.RevokeKey(w.Key.ID)
				w.Server.ResetLog()
				for range 60 {
					require.ErrorIs(t, w.Call(c), tc.want)
					sdktest.Advance(time.Second)
				}
				assert.LessOrEqual(t, len(w.Server.Requests()), 60*15, "calls for a key that cannot be replaced")
				require.NoError(t, c.Close())
			})
		})
	}
}

// Two programs with copies of one store revoke each other's keys. Each issues at most one
// key a minute.
func TestRepairsAreSpaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(agrenting.MemoryStore(), owned(w, agrenting.InPlace))
		require.NoError(t, w.Call(c))
		failed := 0
		for range 300 {
			for _, k := range w.Server.LiveKeys(w.Agent.ID) {
				w.Server.RevokeKey(k.ID)
			}
			if w.Call(c) != nil {
				failed++
			}
			sdktest.Advance(time.Second)
		}
		assert.LessOrEqual(t, w.Server.Count("POST /api/v1/agents/{id}/credentials"), 6)
		assert.Positive(t, failed)
	})
}

// A key was stored while the clock of a process was ten years ahead.
func TestKeyCreatedInTheFuture(t *testing.T) {
	t.Parallel()
	for name, readOnly := range map[string]bool{"writable": false, "read-only": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := w.AgedStore(-3650, nil)
				rec, rev, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				rec.Current.Expires = rec.Current.Created.AddDate(1, 0, 0)
				_, err = sdktest.SaveRecord(t.Context(), store, rec, rev)
				require.NoError(t, err)
				used := store
				if readOnly {
					used = sdktest.Refusing(store, agrenting.ErrReadOnlyStore)
				}
				var failed atomic.Int64
				c := w.Client(used, agrenting.RotationPolicy{Every: 30 * 24 * time.Hour}, agrenting.WithObserver(func(e agrenting.Event) {
					if e.Type == agrenting.EventRotationFailed {
						failed.Add(1)
					}
				}))
				require.NoError(t, w.Call(c))
				if !readOnly {
					rec, _, err = sdktest.LoadRecord(t.Context(), store)
					require.NoError(t, err)
					assert.WithinDuration(t, time.Now(), rec.Current.Created, time.Second)
					assert.WithinDuration(t, time.Now().AddDate(1, 0, 0), rec.Current.Expires, time.Hour*25)
				}
				for range 31 {
					sdktest.Advance(24 * time.Hour)
					require.NoError(t, w.Call(c))
				}
				if readOnly {
					assert.Positive(t, failed.Load(), "a rotation was due")
					return
				}
				assert.EqualValues(t, 2, c.Status().Generation)
				w.OneLiveKey(store)
			})
		})
	}
}

// A store has an older record whose key is live, as if an operator had put it there, and
// the newer key is dead.
func TestOlderRecordIsAdoptedIfNewerKeyIsDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace})
		require.NoError(t, w.Call(c))
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		rec, rev, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		newer := w.Server.LiveKeys(w.Agent.ID)[0]
		operators := w.Server.NewKey(w.Agent.ID)
		rec.Generation, rec.Ancestors = 1, nil
		rec.Current = record.StoredKey{Credential: sdktest.SecretCredential(agrenting.APIKey(operators.Secret)), ID: operators.ID, Created: sdktest.WallNow()}
		w.Server.RevokeKey(newer.ID)
		_, err = sdktest.SaveRecord(t.Context(), store, rec, rev)
		require.NoError(t, err)
		require.NoError(t, w.Call(c))
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		assert.Equal(t, operators.Secret, cred.Reveal())
		w.OneLiveKey(store)
	})
}
