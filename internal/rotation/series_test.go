package rotation_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// named creates a key of the agent with a name.
func named(t *testing.T, w *sdktest.RotationWorld, name string) *agrenting.IssuedKey {
	t.Helper()
	admin, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
		agrenting.WithCredential(agrenting.UserToken(w.Owner.Secret)), agrenting.WithAgentID(w.Agent.ID))
	require.NoError(t, err)
	k, err := admin.Keys.Create(t.Context(), w.Agent.ID, name)
	require.NoError(t, err)
	require.NoError(t, admin.Close())
	return k
}

func TestRotationRevokesEarlierLeftovers(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for name, owner := range map[string]bool{"key": false, "owner": true} {
			t.Run(strategy.String()+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					store := agrenting.MemoryStore()
					p := agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID, Every: -1}
					if owner {
						p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
					}
					c := w.Client(store, p)
					require.NoError(t, w.Call(c))
					rec, _, err := sdktest.LoadRecord(t.Context(), store)
					require.NoError(t, err)
					require.Regexp(t, `^[0-9a-f]{8}$`, rec.Series)
					left := []*agrenting.IssuedKey{
						named(t, w, "agrenting-go/"+rec.Series+"/one"), named(t, w, "agrenting-go/"+rec.Series+"/two"),
					}
					kept := []*agrenting.IssuedKey{
						named(t, w, "mine"), named(t, w, "agrenting-go/00000000/three"), named(t, w, "agrenting-go/four"),
						named(t, w, "my agrenting-go/"+rec.Series+"/five"),
					}
					_, err = c.Rotate(t.Context())
					require.NoError(t, err)
					for _, k := range left {
						assert.False(t, w.Server.KeyAlive(k.Credential.Reveal()), k.Name)
					}
					for _, k := range kept {
						assert.True(t, w.Server.KeyAlive(k.Credential.Reveal()), k.Name)
					}
					require.NoError(t, w.Call(c))
					assert.Len(t, w.Server.LiveKeys(w.Agent.ID), 1+len(kept))
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

// Two programs of one agent have a store and a key each.
func TestStoresLeaveTheKeysOfEachOtherAlone(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(strategy.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				p := agrenting.RotationPolicy{Strategy: strategy, Every: -1, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret))}
				var clients []*agrenting.Client
				for range 2 {
					clients = append(clients, w.Client(agrenting.MemoryStore(), p))
					require.NoError(t, w.Call(clients[len(clients)-1]))
					w.Key = w.Server.NewKey(w.Agent.ID)
				}
				w.Server.RevokeKey(w.Key.ID)
				for n := range 6 {
					_, err := clients[n%2].Rotate(t.Context())
					require.NoError(t, err)
					for _, c := range clients {
						require.NoError(t, w.Call(c))
					}
				}
				assert.Len(t, w.Server.LiveKeys(w.Agent.ID), 2)
				for _, c := range clients {
					assert.Zero(t, c.Status().Failures)
					require.NoError(t, c.Close())
				}
			})
		})
	}
}

// A record of a version without series gets one.
func TestRecordWithoutSeriesGetsOne(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	store := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))
	c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID, Every: -1, Grace: -1})
	_, err := c.Rotate(t.Context())
	require.NoError(t, err)
	rec := w.OneLiveKey(store)
	require.Regexp(t, `^[0-9a-f]{8}$`, rec.Series)
	_, err = c.Rotate(t.Context())
	require.NoError(t, err)
	assert.Equal(t, rec.Series, w.OneLiveKey(store).Series)
	assert.Regexp(t, `^agrenting-go/`+rec.Series+`/`, w.Server.LiveKeys(w.Agent.ID)[0].Name)
}
