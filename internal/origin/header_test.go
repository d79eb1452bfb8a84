package origin

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/wire"
)

func TestIdentityIsFoundAmongHeadersOfSameLength(t *testing.T) {
	t.Parallel()
	for _, name := range []string{wire.HeaderAuthorization, wire.HeaderAPIKey, wire.HeaderAPIKeyAlias, wire.HeaderAgentID} {
		h := http.Header{name: {"x"}}
		for i := range 8 {
			h["Y"+strings.Repeat(string(rune('a'+i)), len(name)-1)] = []string{"y"}
		}
		for range 100 { // maps are ranged over in any order
			credential, agent := Identity(h)
			require.Equal(t, name != wire.HeaderAgentID, credential, name)
			require.Equal(t, name == wire.HeaderAgentID, agent, name)
		}
	}
}
