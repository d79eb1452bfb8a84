package agrenting

import (
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

func TestSealedKeyIsNeverSentAsAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner := MemoryStore()
		sealed, err := Sealed(inner, "test", NewSealingKey())
		require.NoError(t, err)
		_, err = saveRecord(t.Context(), sealed, record.Key{Generation: 1, Current: record.StoredKey{Credential: APIKey("a-key-0123456789").c}}, "")
		require.NoError(t, err)
		sent := false
		c, err := New(WithoutEnvironment(), WithStore(inner), WithTransport(tripFunc(func(*http.Request) (*http.Response, error) {
			sent = true
			return reply(http.StatusOK, "{}"), nil
		})))
		require.NoError(t, err)
		defer c.Close()
		_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorIs(t, err, ErrInvalidRecord)
		require.ErrorContains(t, err, "sealed")
		require.False(t, sent)
	})
}
