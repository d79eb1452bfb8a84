package environ_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
)

func reader(vars map[string]string) environ.Reader {
	return environ.New(func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
}

func TestCandidatesComeInTheOrderOfPrecedence(t *testing.T) {
	t.Parallel()
	vars := reader(map[string]string{environ.SandboxAPIKey: "s", environ.SessionToken: "t"})
	for sandbox, want := range map[bool]string{
		true:  "[AGRENTING_KEY_FILE:false AGRENTING_SANDBOX_API_KEY:true AGRENTING_API_KEY:false AGRENTING_SESSION_TOKEN:true]",
		false: "[AGRENTING_KEY_FILE:false AGRENTING_SANDBOX_API_KEY:true AGRENTING_API_KEY:false AGRENTING_SESSION_TOKEN:true]",
	} {
		var got []string
		for _, c := range vars.Candidates(sandbox) {
			got = append(got, fmt.Sprintf("%s:%v", c.Name, c.IsSet()))
			assert.Equal(t, c.Name == environ.SandboxAPIKey && !sandbox, c.Ignored)
		}
		assert.Equal(t, want, fmt.Sprint(got))
	}
	assert.Len(t, reader(nil).Candidates(false), 3, "the key of the sandbox is not mentioned")
	assert.Len(t, environ.New(nil).Candidates(true), 4)
}

func TestCandidateDoesNotPrintItsValue(t *testing.T) {
	t.Parallel()
	for _, c := range reader(map[string]string{environ.APIKey: "Zq7Wm3Xp9Rt5"}).Candidates(false) {
		assert.NotContains(t, fmt.Sprintf("%v %+v %#v", c, c, c), "Zq7")
	}
}

func TestVariableNameDecidesKind(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]secret.Kind{
		environ.APIKey: secret.KindAPIKey, environ.SandboxAPIKey: secret.KindAPIKey, environ.SessionToken: secret.KindSession, environ.KeyFile: 0,
	} {
		for _, c := range reader(map[string]string{name: "k"}).Candidates(true) {
			if c.Name != name {
				continue
			}
			path, file, err := c.Path()
			require.NoError(t, err)
			assert.Equal(t, want == 0, file)
			if file {
				assert.Equal(t, "k", path)
				continue
			}
			cred, err := c.Credential(0)
			require.NoError(t, err)
			assert.Equal(t, want, cred.Kind())
		}
	}
}

func TestOneWordDisablesTheGuard(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "allow": true, "Allow": true} {
		got, err := reader(map[string]string{environ.UnmarkedTokens: value}).AllowsUnmarkedTokens()
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, value := range []string{"1", "true", "allowed", " "} {
		_, err := reader(map[string]string{environ.UnmarkedTokens: value}).AllowsUnmarkedTokens()
		require.ErrorIs(t, err, origin.ErrInvalid)
		require.ErrorContains(t, err, environ.UnmarkedTokens)
	}
}

func TestValueOfUnsetVariableIsIgnored(t *testing.T) {
	t.Parallel()
	vars := environ.New(func(string) (string, bool) { return "k", false })
	assert.Empty(t, vars.Get(environ.APIKey))
	for _, c := range vars.Candidates(true) {
		assert.False(t, c.IsSet(), c.Name)
	}
}
