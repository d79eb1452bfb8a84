package agrenting

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSealedKeyIsNeverSentAsAKey(t *testing.T) {
	t.Parallel()
	inner := MemoryStore(Credential{})
	sealed, err := Sealed(inner, NewSealingKey())
	require.NoError(t, err)
	_, err = sealed.Save(t.Context(), KeyRecord{Generation: 1, Current: StoredKey{Credential: APIKey("a-key-0123456789")}}, "")
	require.NoError(t, err)
	sent := false
	c, err := New(WithoutEnvironment(), WithKeyStore(inner), WithTransport(tripFunc(func(*http.Request) (*http.Response, error) {
		sent = true
		return reply(http.StatusOK, "{}"), nil
	})))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, ErrSealed)
	require.False(t, sent)
}
