package agrenting

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// The owner's credential is held against the environment like any other.
func TestTheOwnersCredentialGoesToItsEnvironmentOnly(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		sandbox bool // the client
		marked  bool // the owner's token
		opts    []Option
		refused bool
	}{
		"a marked token in the sandbox":    {sandbox: true, marked: true},
		"an unmarked token in the sandbox": {sandbox: true, refused: true},
		"an unmarked token that is let in": {sandbox: true, opts: []Option{WithUnmarkedSandboxTokens()}},
		"a sandbox token in production":    {marked: true, refused: true},
		"an unmarked token in production":  {},
	} {
		for _, strategy := range []Strategy{InPlace, Overlap} {
			t.Run(name+", "+strategy.String(), func(t *testing.T) {
				t.Parallel()
				w := newRotationWorld(t)
				user := w.srv.NewUser("another")
				w.agent = w.srv.NewAgent(user, agrentingtest.AgentConfig{Name: "s", Sandbox: tc.sandbox})
				w.key = w.srv.NewKey(w.agent.ID)
				token := w.srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner", Sandbox: tc.marked})
				env := Production
				if tc.sandbox {
					env = Sandbox
				}
				policy := RotationPolicy{AgentID: w.agent.ID, KeyID: w.key.ID, Strategy: strategy, Grace: -1}
				opts := append([]Option{
					WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithEnvironment(env),
					WithCredential(APIKey(w.key.Secret)), WithStore(MemoryStore()),
				}, tc.opts...)

				policy.Owner = Static(UserToken(token.Secret))
				c, err := New(append(opts, WithRotation(policy))...)
				if tc.refused {
					require.ErrorIs(t, err, ErrEnvironmentMismatch, "New can tell")
					require.ErrorContains(t, err, "RotationPolicy.Owner")
				} else {
					require.NoError(t, err)
					require.NoError(t, c.Close())
				}

				policy.Owner = CredentialSourceFunc(func(context.Context) (Credential, error) { return UserToken(token.Secret), nil })
				c, err = New(append(opts, WithRotation(policy))...)
				require.NoError(t, err)
				_, err = c.Rotate(t.Context())
				require.NoError(t, c.Close())
				used := 0
				for _, r := range w.srv.Requests() {
					if r.CredentialID == token.ID {
						used++
					}
				}
				if !tc.refused {
					require.NoError(t, err)
					assert.Positive(t, used)
					return
				}
				require.ErrorIs(t, err, ErrEnvironmentMismatch)
				assert.Zero(t, used, "requests that carried it")
				assert.True(t, w.srv.KeyAlive(w.key.Secret))
			})
		}
	}
}
