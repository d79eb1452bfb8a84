package agrenting

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFileSourceReadsCredential(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		content string
		kind    Kind // override
		want    Credential
	}{
		"api key":         {"k1", 0, APIKey("k1")},
		"user token":      {"ap_k1\n", 0, UserToken("ap_k1")},
		"override":        {"ap_k1\n", KindAPIKey, APIKey("ap_k1")},
		"session":         {"k1", KindSession, SessionToken("k1", time.Time{})},
		"windows editor":  {"\ufeffk1\r\n", 0, APIKey("k1")},
		"blank lines":     {"\n\n  k1  \n\n", 0, APIKey("k1")},
		"much white room": {strings.Repeat("\n", 60<<10) + "k1", 0, APIKey("k1")},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "key")
			require.NoError(t, os.WriteFile(path, []byte(tc.content), 0o600))

			src := newFileSource(path, tc.kind)
			for range 2 {
				c, err := src.Credential(t.Context())
				require.NoError(t, err)
				assert.True(t, tc.want.Equal(c), c.String())
			}
		})
	}
}

func TestKeyInFilePathIsNotShown(t *testing.T) {
	t.Parallel()

	const key = "sk_sandbox_0123456789abcdef0123"
	src := FileSource("./" + key)
	_, err := src.Credential(t.Context())
	require.ErrorIs(t, err, ErrNoCredential)
	assert.NotContains(t, err.Error(), key)
	assert.Equal(t, "agrenting.FileSource(./[redacted])", fmt.Sprint(src))
}
