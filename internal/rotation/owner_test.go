package rotation_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// The owner's credential is held against the environment like any other.
func TestTheOwnersCredentialGoesToItsEnvironmentOnly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		sandbox bool // the client
		marked  bool // the owner's token
		opts    []agrenting.Option
		refused bool
	}{
		"a marked token in the sandbox":    {sandbox: true, marked: true},
		"an unmarked token in the sandbox": {sandbox: true, refused: true},
		"an unmarked token that is let in": {sandbox: true, opts: []agrenting.Option{agrenting.WithUnmarkedSandboxTokens()}},
		"a sandbox token in production":    {marked: true, refused: true},
		"an unmarked token in production":  {},
	} {
		for _, strategy := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
			t.Run(name+", "+strategy.String(), func(t *testing.T) {
				t.Parallel()
				w := sdktest.NewRotationWorld(t)
				user := w.Server.NewUser("another")
				w.Agent = w.Server.NewAgent(user, agrentingtest.AgentConfig{Name: "s", Sandbox: tc.sandbox})
				w.Key = w.Server.NewKey(w.Agent.ID)
				token := w.Server.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner", Sandbox: tc.marked})
				env := agrenting.Production
				if tc.sandbox {
					env = agrenting.Sandbox
				}
				policy := agrenting.RotationPolicy{AgentID: w.Agent.ID, KeyID: w.Key.ID, Strategy: strategy, Grace: -1}
				opts := append([]agrenting.Option{
					agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()), agrenting.WithEnvironment(env),
					agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithStore(agrenting.MemoryStore()),
				}, tc.opts...)

				policy.Owner = agrenting.Static(agrenting.UserToken(token.Secret))
				c, err := agrenting.New(append(opts, agrenting.WithRotation(policy))...)
				if tc.refused {
					require.ErrorIs(t, err, agrenting.ErrEnvironmentMismatch, "New can tell")
					require.ErrorContains(t, err, "RotationPolicy.Owner")
				} else {
					require.NoError(t, err)
					require.NoError(t, c.Close())
				}

				policy.Owner = agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return agrenting.UserToken(token.Secret), nil })
				c, err = agrenting.New(append(opts, agrenting.WithRotation(policy))...)
				require.NoError(t, err)
				_, err = c.Rotate(t.Context())
				require.NoError(t, c.Close())
				used := 0
				for _, r := range w.Server.Requests() {
					if r.CredentialID == token.ID {
						used++
					}
				}
				if !tc.refused {
					require.NoError(t, err)
					assert.Positive(t, used)
					return
				}
				require.ErrorIs(t, err, agrenting.ErrEnvironmentMismatch)
				assert.Zero(t, used, "requests that carried it")
				assert.True(t, w.Server.KeyAlive(w.Key.Secret))
			})
		}
	}
}
