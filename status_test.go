package agrenting

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheStatusOfAFixedCredential(t *testing.T) {
	t.Parallel()
	expires := time.Now().Add(time.Hour).Round(0)
	c, err := New(WithoutEnvironment(), WithCredential(SessionToken("st_1", expires)), WithAgentID("agent-1"),
		WithBaseURL(apiURL+"/tenant"), WithEnvironment(Production))
	require.NoError(t, err)
	assert.Equal(t, Status{
		State: StateReady, Source: "WithCredential", Origin: apiURL, AgentID: "agent-1", Environment: Production,
		Kind: KindSession, Generation: 1, Fingerprint: SessionToken("st_1", expires).Fingerprint(), Expires: expires,
	}, c.Status())
	require.NoError(t, c.Close())
	s := c.Status()
	assert.Equal(t, StateClosed, s.State)
	assert.Equal(t, "WithCredential", s.Source)
	assert.Empty(t, s.Fingerprint)
}

func TestTheStatusNamesTheSource(t *testing.T) {
	t.Parallel()
	cases := map[string]Option{
		"AGRENTING_API_KEY":         lookupIn(map[string]string{"AGRENTING_API_KEY": "k"}),
		"AGRENTING_SESSION_TOKEN":   lookupIn(map[string]string{"AGRENTING_SESSION_TOKEN": "k"}),
		"AGRENTING_KEY_FILE":        lookupIn(map[string]string{"AGRENTING_KEY_FILE": "/nowhere/key"}),
		"AGRENTING_SANDBOX_API_KEY": lookupIn(map[string]string{"AGRENTING_SANDBOX_API_KEY": "sk_sandbox_k", "AGRENTING_ENV": "sandbox"}),
		"WithCredential":            WithCredential(APIKey("k")),
		"WithCredentialSource":      WithCredentialSource(newMint("k")),
		"WithAnonymous":             WithAnonymous(),
	}
	for name, opt := range cases {
		c, err := New(WithoutEnvironment(), opt)
		require.NoError(t, err)
		assert.Equal(t, name, c.Status().Source)
		require.NoError(t, c.Close())
	}
}

func TestStatusReportsEnvironmentOfCredential(t *testing.T) {
	t.Parallel()
	for secret, want := range map[string]Environment{"plain": Production, "sk_sandbox_x": Sandbox} {
		c, err := New(WithoutEnvironment(), WithCredential(APIKey(secret)))
		require.NoError(t, err)
		assert.Equal(t, want, c.Status().Environment)
		require.NoError(t, c.Close())
	}
	c, err := New(WithoutEnvironment(), WithCredential(UserToken("ap_x")))
	require.NoError(t, err)
	assert.Empty(t, c.Status().Environment, "a user token does not tell")
	require.NoError(t, c.Close())
}

func TestTheStatusFollowsARenewingCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("")
		src.replace(SessionToken("st_1", time.Now().Add(10*time.Hour)))
		fails := func(err error) {
			src.mu.Lock()
			defer src.mu.Unlock()
			src.err = err
		}
		release := src.hold()
		c := clientOver(t, answering(http.StatusOK, "{}"), src)
		assert.Equal(t, StateEmpty, c.Status().State)
		assert.Zero(t, c.Status().Kind)

		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := c.Credential(t.Context())
				errs <- err
			}()
		}
		synctest.Wait()
		s := c.Status()
		assert.True(t, s.Fetching)
		assert.Equal(t, 2, s.Waiters)
		release()
		require.NoError(t, <-errs)
		require.NoError(t, <-errs)

		s = c.Status()
		assert.Equal(t, StateReady, s.State)
		assert.EqualValues(t, 1, s.Generation)
		assert.Equal(t, 10*time.Hour, time.Until(s.Expires))
		assert.True(t, s.NextRenewal.Before(s.Expires) && s.NextRenewal.After(time.Now().Add(8*time.Hour)), s.NextRenewal)

		release = src.hold()
		letPass(time.Until(s.NextRenewal) + time.Second)
		assert.Equal(t, StateRenewing, c.Status().State, "served while it is renewed")
		fails(errors.New("away"))
		release()
		synctest.Wait()
		s = c.Status()
		assert.Equal(t, StateReady, s.State)
		require.EqualError(t, s.LastError, "away")
		assert.Equal(t, 1, s.Failures)
		assert.True(t, s.RetryAt.After(time.Now()))

		letPass(time.Until(s.Expires) + time.Second)
		_, err := c.Credential(t.Context())
		require.Error(t, err)
		assert.Equal(t, StateFailing, c.Status().State)

		fails(nil)
		src.replace(SessionToken("st_2", time.Now().Add(10*time.Hour)))
		letPass(2 * time.Minute)
		s = c.Status()
		assert.Equal(t, StateReady, s.State)
		assert.EqualValues(t, 2, s.Generation)
		require.NoError(t, s.LastError)
		assert.Zero(t, s.Failures)

		release = src.hold()
		go func() { errs <- rejectIn(t.Context(), c) }()
		synctest.Wait()
		assert.Equal(t, StateWaiting, c.Status().State)
		release()
		require.NoError(t, <-errs)
	})
}

// rejectIn reports a 401 on the credential in use.
func rejectIn(ctx context.Context, c *Client) error {
	l, err := c.core.creds.get(ctx)
	if err != nil {
		return err
	}
	_, err = c.core.creds.engine.Reject(ctx, l.Number, true)
	return err
}
