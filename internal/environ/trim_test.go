package environ_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestValuesAreTrimmed(t *testing.T) {
	t.Parallel()
	for _, space := range []string{" ", "\n", "\r\n", "\t"} {
		vars := map[string]string{}
		for _, name := range []string{
			environ.Environment, environ.AgentID, environ.URL, environ.KeyFile, environ.SandboxAPIKey, environ.APIKey, environ.SessionToken,
		} {
			vars[name] = space + "value" + space
		}
		vars[environ.CredentialType] = space + "user_token" + space
		vars[environ.UnmarkedTokens] = space + "allow" + space
		r := reader(vars)
		for _, name := range []string{environ.Environment, environ.AgentID, environ.URL} {
			assert.Equal(t, "value", r.Get(name), "%s, %q", name, space)
			text, err := r.Text(name, "text")
			require.NoError(t, err)
			assert.Equal(t, "value", text)
		}
		kind, err := r.Kind()
		require.NoError(t, err)
		assert.Equal(t, secret.KindUserToken, kind)
		allowed, err := r.AllowsUnmarkedTokens()
		require.NoError(t, err)
		assert.True(t, allowed)
		for _, c := range r.Candidates(true) {
			if path, file, err := c.Path(); file {
				require.NoError(t, err)
				assert.Equal(t, "value", path)
				continue
			}
			cred, err := c.Credential(0)
			require.NoError(t, err)
			assert.Equal(t, "value", cred.Reveal())
		}
	}
	_, err := reader(map[string]string{environ.URL: " \n"}).Text(environ.URL, "text")
	require.ErrorContains(t, err, "white space only")
}
