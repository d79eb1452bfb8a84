package agrenting

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestVerifyTellsWhetherThePlatformKnowsTheCredential(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		200: nil, 204: nil, 402: nil, 403: nil, 409: nil, 422: nil,
		401: ErrUnauthorized, 404: ErrNotFound, 410: ErrGone, 429: ErrRateLimited, 500: ErrServer, 503: ErrServer,
		307: ErrForeignOrigin,
	} {
		base := answering(status, `{"errors":[{"code":"X","message":"no"}]}`, "Location", "https://elsewhere.example/")
		if status < 300 {
			base = answering(status, `{"data":[]}`)
		}
		c := keyed(t, base, WithRetryPolicy(RetryPolicy{MaxAttempts: 1}), WithRoutes(Routes{Verify: "/api/v9/me"}))
		err := c.Verify(t.Context())
		require.ErrorIs(t, err, want, "%d", status)
		if want != nil && status != http.StatusTemporaryRedirect {
			var api *APIError
			require.ErrorAs(t, err, &api)
			assert.Equal(t, status, api.StatusCode)
		}
		assert.Equal(t, apiURL+"/api/v9/me", base.only(t).url)
	}
}

func TestVerifyLeavesTheQuestionOpenWhereNobodyAnswersIt(t *testing.T) {
	t.Parallel()
	dropped := tripFunc(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
	c := keyed(t, dropped, WithRetryPolicy(RetryPolicy{MaxAttempts: 1}))
	require.ErrorIs(t, c.Verify(t.Context()), io.ErrUnexpectedEOF)
	c = keyed(t, answering(http.StatusOK, `{"errors":[{"code":"UNAUTHORIZED"}]}`))
	require.Error(t, c.Verify(t.Context()), "a failure under a 200 settles nothing")

	for _, status := range []int{200, 201, 403, 422} {
		c = keyed(t, answering(status, "<html>Sign in to the network</html>", "Content-Type", "text/html; charset=utf-8"))
		require.ErrorIs(t, c.Verify(t.Context()), ErrMalformedResponse, "%d", status)
	}
	c = keyed(t, answering(http.StatusOK, ""))
	require.ErrorIs(t, c.Verify(t.Context()), ErrMalformedResponse, "the platform's list is not empty of everything")
	require.NoError(t, keyed(t, answering(http.StatusNoContent, "")).Verify(t.Context()))

	base := answering(http.StatusOK, "")
	anonymous, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithTransport(base), WithAnonymous())
	require.NoError(t, err)
	require.ErrorIs(t, anonymous.Verify(t.Context()), ErrNoCredential)
	assert.Empty(t, base.requests(), "there is nothing to ask")
	require.NoError(t, anonymous.Close())
	require.ErrorIs(t, anonymous.Verify(t.Context()), ErrClosed)
}

func TestVerifyKnowsEveryKindOnTheEmbeddedPlatform(t *testing.T) {
	t.Parallel()
	srv := memoryServer(t)
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{})
	key := srv.NewKey(agent.ID)
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{})
	session, _ := srv.NewSession(key.Secret)
	for name, cred := range map[string]Credential{
		"key": APIKey(key.Secret), "user token": UserToken(token.Secret), "session": SessionToken(session, time.Time{}),
	} {
		require.NoError(t, clientOf(t, srv, WithCredential(cred)).Verify(t.Context()), name)
	}
	for name, cred := range map[string]Credential{
		"key": APIKey(testKey), "user token": UserToken("ap_" + testKey), "session": SessionToken(testKey, time.Time{}),
	} {
		require.ErrorIs(t, clientOf(t, srv, WithCredential(cred)).Verify(t.Context()), ErrUnauthorized, name)
	}
}
