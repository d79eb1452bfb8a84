package rotation_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// The stored key of an agent is dead while the program of another agent starts with the
// same store.
func TestDeadKeyOfOtherAgent(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ session, named bool }{
		"keys": {}, "keys, named": {named: true}, "sessions": {session: true}, "sessions, named": {session: true, named: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionShape(agrentingtest.ShapeDocs))
				second := w.Server.NewAgent(nil, agrentingtest.AgentConfig{Name: "second"})
				store, id := agrenting.MemoryStore(), ""
				var opts []agrenting.Option
				if tc.session {
					opts = append(opts, agrenting.WithSession())
				}
				if tc.named {
					id = second.ID
				}
				a := agentClient(t, w, store, w.Key.Secret, "", opts...)
				require.NoError(t, w.Call(a))
				w.Server.RevokeKey(w.Key.ID)
				sdktest.Advance(10 * time.Minute)
				w.Server.ResetLog()
				b := agentClient(t, w, store, w.Server.NewKey(second.ID).Secret, id, opts...)
				require.NoError(t, w.Call(b))
				for _, r := range w.Server.Requests() {
					if r.Path == "/api/v1/tasks" {
						assert.NotEqual(t, "agent:"+w.Agent.ID, r.Principal)
					}
				}
				w.Server.ResetLog()
				sdktest.Advance(2 * time.Second)
				_ = w.Call(a) // it fails, unless its session has not ended
				for _, r := range w.Server.Requests() {
					if r.Path == "/api/v1/tasks" {
						assert.NotEqual(t, "agent:"+second.ID, r.Principal)
					}
				}
			})
		})
	}
}

// One response each to list, authenticate, and verify is a stray 401.
func TestStrayRefusalsWhileFindingOutTheAgent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionShape(agrentingtest.ShapeDocs))
		store := agrenting.MemoryStore()
		require.NoError(t, w.Call(agentClient(t, w, store, w.Key.Secret, "")))
		other := w.Server.NewKey(w.Agent.ID)
		calls := map[string]int{}
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if sdktest.SecretOf(r.Header) == other.Secret {
				calls[r.URL.Path]++
				if calls[r.URL.Path] == 1 {
					resp := refusalOf(http.StatusUnauthorized)
					resp.Request = r
					return resp, nil
				}
			}
			return w.Server.Transport().RoundTrip(r)
		})
		b := agentClient(t, w, store, other.Secret, "", agrenting.WithTransport(base))
		require.NoError(t, w.Call(b))
	})
}

func TestStoredKeyOfOtherEnvironmentIsNotSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			assert.NotEqual(t, w.Key.Secret, sdktest.SecretOf(r.Header), "%s %s", r.Method, r.URL.Path)
			return w.Server.Transport().RoundTrip(r)
		})
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(base),
			agrenting.WithEnvironment(agrenting.Sandbox), agrenting.WithStore(store),
			agrenting.WithCredential(agrenting.APIKey("sk_sandbox_0123456789abcdef0123456789abcdef")))
		require.NoError(t, err)
		require.ErrorIs(t, w.Call(c), agrenting.ErrEnvironmentMismatch)
		require.NoError(t, c.Close())
	})
}

// A process died after it had saved a pending key, and the others cannot write.
func TestPendingKeyIsUsedWithoutWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		shared := agrenting.MemoryStore()
		life := newMortal(w.Server.Transport())
		stopping := &sdktest.HookedStore{Store: &skewedStore{shared, new(wallClock), life.live}}
		policy := agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}
		a := w.Client(stopping, policy, agrenting.WithTransport(life))
		require.NoError(t, w.Call(a))
		saves := 0
		stopping.OnSave(func() {
			saves++
			if saves == 4 {
				life.die()
			}
		})
		_, err := a.Rotate(t.Context())
		require.Error(t, err)
		rec, _, err := sdktest.LoadRecord(t.Context(), shared)
		require.NoError(t, err)
		require.False(t, rec.Pending.IsZero())
		sdktest.Advance(time.Minute)
		b := w.Client(sdktest.Refusing(shared, errStoreIO), policy)
		for range 60 {
			require.NoError(t, w.Call(b))
			sdktest.Advance(time.Second)
		}
		_ = a.Close() // dead
		require.NoError(t, b.Close())
	})
}

// The first attempt to replace a dead key fails.
func TestRepairIsRepeated(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]agrentingtest.Fault{
		"503":  agrentingtest.Status(http.StatusServiceUnavailable, "UNAVAILABLE").Times(3),
		"page": agrentingtest.Page(http.StatusForbidden).Times(4),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				c := w.Client(agrenting.MemoryStore(), owned(w, agrenting.InPlace))
				require.NoError(t, w.Call(c))
				sdktest.Advance(10 * time.Minute)
				w.Server.RevokeKey(w.Key.ID)
				w.Server.Fault(sdktest.RouteCreateKey, f)
				failed := 0
				for range 90 {
					if w.Call(c) != nil {
						failed++
					}
					sdktest.Advance(time.Second)
				}
				assert.LessOrEqual(t, failed, 15)
				require.NoError(t, c.Close())
			})
		})
	}
}

// A person creates a key while one is rotated in place.
func TestKeyOfAPersonIsNotRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		var persons agrentingtest.Key
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			resp, err := w.Server.Transport().RoundTrip(r)
			if strings.HasSuffix(r.URL.Path, "/rotate-key") {
				persons = w.Server.NewKey(w.Agent.ID)
			}
			return resp, err
		})
		c := w.Client(agrenting.MemoryStore(), owned(w, agrenting.InPlace), agrenting.WithTransport(base))
		require.NoError(t, w.Call(c))
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.True(t, w.Server.KeyAlive(persons.Secret))
	})
}

// A part of the platform refuses the new key for 2 s after another one has accepted it.
func TestYoungKeyIsNotGivenBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		var first time.Time
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if s := sdktest.SecretOf(r.Header); s != w.Key.Secret && sdktest.IsVerify(r) {
				if first.IsZero() {
					first = time.Now()
				} else if time.Since(first) < 2*time.Second {
					resp := refusalOf(http.StatusUnauthorized)
					resp.Request = r
					return resp, nil
				}
			}
			return w.Server.Transport().RoundTrip(r)
		})
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Every: -1, Strategy: agrenting.Overlap, KeyID: w.Key.ID}, agrenting.WithTransport(base))
		require.NoError(t, w.Call(c))
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.NotEqual(t, w.Key.Secret, w.OneLiveKey(store).Current.Credential.Reveal())
	})
}

// A newer record with a dead key appears under a client whose key is live.
func TestNewerRecordWithDeadKey(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ foreign, unknownID bool }{
		"same lineage": {}, "same lineage, ID unknown": {unknownID: true},
		"another lineage": {foreign: true}, "another lineage, ID unknown": {foreign: true, unknownID: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				c := agentClient(t, w, store, w.Key.Secret, "", agrenting.WithTransport(sdktest.Saying(w.Server.Transport(), func(k map[string]any) {
					if tc.unknownID {
						delete(k, "id")
					}
				})))
				require.NoError(t, w.Call(c))
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				sdktest.Advance(10 * time.Minute)
				require.NoError(t, w.Call(c))
				rec, rev, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				k := w.Server.NewKey(w.Agent.ID)
				w.Server.RevokeKey(k.ID)
				dead := sdktest.SecretCredential(agrenting.APIKey(k.Secret))
				lineage := rec.Lineage
				if tc.foreign {
					lineage = record.LineageOf(dead)
				}
				_, err = sdktest.SaveRecord(t.Context(), store, record.Key{
					Generation: 9, Lineage: lineage, Current: record.StoredKey{Credential: dead, Created: sdktest.WallNow()},
				}, rev)
				require.NoError(t, err)
				for range 120 {
					sdktest.Advance(time.Second)
					require.NoError(t, w.Call(c))
				}
				require.True(t, w.Server.KeyAlive(rec.Current.Credential.Reveal()))
			})
		})
	}
}
