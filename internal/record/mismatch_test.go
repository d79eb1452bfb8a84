package record_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// A client uses nothing of a record that belongs elsewhere.
func TestStoredKeyOfOtherPlaceIsNotUsed(t *testing.T) { //nolint:tparallel // they count the requests of one platform
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	other := sdktest.NewRotationWorld(t)
	for name, tc := range map[string]struct { //nolint:paralleltest // as above
		field string
		open  func(store agrenting.Store) *agrenting.Client
	}{
		"another agent": {"agent", func(store agrenting.Store) *agrenting.Client {
			return w.Client(store, agrenting.RotationPolicy{AgentID: other.Agent.ID})
		}},
		"another default agent": {"agent", func(store agrenting.Store) *agrenting.Client {
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
				agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithStore(store), agrenting.WithAgentID(other.Agent.ID))
			require.NoError(t, err)
			return c
		}},
		"another origin": {"origin", func(store agrenting.Store) *agrenting.Client {
			return w.Client(store, agrenting.RotationPolicy{}, agrenting.WithBaseURL(other.Server.URL), agrenting.WithTransport(other.Server.Transport()))
		}},
		"another environment": {"environment", func(store agrenting.Store) *agrenting.Client {
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
				agrenting.WithCredential(agrenting.APIKey("sk_sandbox_0123456789")), agrenting.WithStore(store), agrenting.WithEnvironment(agrenting.Sandbox))
			require.NoError(t, err)
			return c
		}},
	} {
		t.Run(name, func(t *testing.T) {
			store := agrenting.MemoryStore()
			require.NoError(t, w.Call(w.Client(store, agrenting.RotationPolicy{}, agrenting.WithEnvironment(agrenting.Production))))
			before, err := store.Load(t.Context(), "key")
			require.NoError(t, err)
			c := tc.open(store)
			defer c.Close()
			sent := len(w.Server.Requests()) + len(other.Server.Requests())
			err = w.Call(c)
			m, ok := errors.AsType[*agrenting.RecordMismatchError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tc.field, m.Field)
			assert.NotEmpty(t, m.Stored)
			assert.NotEqual(t, m.Stored, m.Configured)
			assert.Contains(t, err.Error(), "Namespace")
			_, err = c.Rotate(t.Context())
			require.ErrorAs(t, err, &m)
			assert.Equal(t, sent, len(w.Server.Requests())+len(other.Server.Requests()), "nothing was sent")
			after, err := store.Load(t.Context(), "key")
			require.NoError(t, err)
			assert.Equal(t, string(before.Data), string(after.Data), "nothing was changed")
		})
	}
}
