package agrenting

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClientPrintsNoSecretOfItsSource(t *testing.T) {
	t.Parallel()
	key := APIKey(probeSecret)
	fine := forgetful(http.StatusOK, `{"data":{"session_token":"`+probeSecret+`","expires_at":"2036-12-24T18:00:00Z"}}`)
	from := CredentialSourceFunc(func(context.Context) (Credential, error) { return key, nil })
	sealed, err := Sealed(MemoryStore(), "test", NewSealingKey())
	require.NoError(t, err)
	for name, c := range map[string]*Client{
		"by a function": clientOver(t, fine, from),
		"with sessions": clientOver(t, fine, from, WithSession()),
		"from a store":  clientOver(t, fine, from, WithStore(storeWith(key))),
		"sealed":        clientOver(t, fine, from, WithStore(sealed)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)
			probe(t, "client", c, probeSecret)
			probe(t, "transport", c.transport, probeSecret)
			probe(t, "status", c.Status(), probeSecret)
			require.NoError(t, c.Close())
		})
	}
}
