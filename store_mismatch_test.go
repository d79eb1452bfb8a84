package agrenting

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A client uses nothing of a record that belongs elsewhere.
func TestStoredKeyOfAnotherPlaceIsNotUsed(t *testing.T) { //nolint:tparallel // they count the requests of one platform
	t.Parallel()
	w := newRotationWorld(t)
	other := newRotationWorld(t)
	for name, tc := range map[string]struct { //nolint:paralleltest // as above
		field string
		open  func(store Store) *Client
	}{
		"another agent": {"agent", func(store Store) *Client {
			return w.client(store, RotationPolicy{AgentID: other.agent.ID})
		}},
		"another default agent": {"agent", func(store Store) *Client {
			c, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()),
				WithCredential(APIKey(w.key.Secret)), WithStore(store), WithAgentID(other.agent.ID))
			require.NoError(t, err)
			return c
		}},
		"another origin": {"origin", func(store Store) *Client {
			return w.client(store, RotationPolicy{}, WithBaseURL(other.srv.URL), WithTransport(other.srv.Transport()))
		}},
		"another environment": {"environment", func(store Store) *Client {
			c, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()),
				WithCredential(APIKey("sk_sandbox_0123456789")), WithStore(store), WithEnvironment(Sandbox))
			require.NoError(t, err)
			return c
		}},
	} {
		t.Run(name, func(t *testing.T) {
			store := MemoryStore()
			require.NoError(t, w.call(w.client(store, RotationPolicy{}, WithEnvironment(Production))))
			before, err := store.Load(t.Context(), "key")
			require.NoError(t, err)
			c := tc.open(store)
			defer c.Close()
			sent := len(w.srv.Requests()) + len(other.srv.Requests())
			err = w.call(c)
			m, ok := errors.AsType[*RecordMismatchError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tc.field, m.Field)
			assert.NotEmpty(t, m.Stored)
			assert.NotEqual(t, m.Stored, m.Configured)
			assert.Contains(t, err.Error(), "Namespace")
			_, err = c.Rotate(t.Context())
			require.ErrorAs(t, err, &m)
			assert.Equal(t, sent, len(w.srv.Requests())+len(other.srv.Requests()), "nothing was sent")
			after, err := store.Load(t.Context(), "key")
			require.NoError(t, err)
			assert.Equal(t, string(before.Data), string(after.Data), "nothing was changed")
		})
	}
}
