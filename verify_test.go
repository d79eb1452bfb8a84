package agrenting_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestVerifyReportsVerdict(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		200: nil, 204: nil, 402: nil, 403: nil, 409: nil, 422: nil,
		401: agrenting.ErrUnauthorized, 404: agrenting.ErrNotFound, 410: agrenting.ErrGone, 429: agrenting.ErrRateLimited, 500: agrenting.ErrServer, 503: agrenting.ErrServer,
		307: agrenting.ErrForeignOrigin,
	} {
		base := sdktest.Answering(status, `{"errors":[{"code":"X","message":"no"}]}`, "Location", "https://elsewhere.example/")
		if status < 300 {
			base = sdktest.Answering(status, `{"data":[]}`)
		}
		c := sdktest.Keyed(t, base, agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}), agrenting.WithRoutes(agrenting.Routes{Verify: "/api/v9/me"}))
		err := c.Verify(t.Context())
		require.ErrorIs(t, err, want, "%d", status)
		if want != nil && status != http.StatusTemporaryRedirect {
			var api *agrenting.APIError
			require.ErrorAs(t, err, &api)
			assert.Equal(t, status, api.StatusCode)
		}
		assert.Equal(t, sdktest.APIURL+"/api/v9/me", base.Only(t).URL)
	}
}

func TestVerifyWithoutVerdictReturnsOtherErrors(t *testing.T) {
	t.Parallel()
	dropped := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })
	c := sdktest.Keyed(t, dropped, agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}))
	require.ErrorIs(t, c.Verify(t.Context()), io.ErrUnexpectedEOF)
	c = sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"errors":[{"code":"UNAUTHORIZED"}]}`))
	require.Error(t, c.Verify(t.Context()), "a failure under a 200 settles nothing")

	for _, status := range []int{200, 201, 403, 422} {
		c = sdktest.Keyed(t, sdktest.Answering(status, "<html>Sign in to the network</html>", "Content-Type", "text/html; charset=utf-8"))
		require.ErrorIs(t, c.Verify(t.Context()), agrenting.ErrMalformedResponse, "%d", status)
	}
	c = sdktest.Keyed(t, sdktest.Answering(http.StatusOK, ""))
	require.ErrorIs(t, c.Verify(t.Context()), agrenting.ErrMalformedResponse, "the platform's list is not empty of everything")
	require.NoError(t, sdktest.Keyed(t, sdktest.Answering(http.StatusNoContent, "")).Verify(t.Context()))

	base := sdktest.Answering(http.StatusOK, "")
	anonymous, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(base), agrenting.WithAnonymous())
	require.NoError(t, err)
	require.ErrorIs(t, anonymous.Verify(t.Context()), agrenting.ErrNoCredential)
	assert.Empty(t, base.Requests(), "there is nothing to ask")
	require.NoError(t, anonymous.Close())
	require.ErrorIs(t, anonymous.Verify(t.Context()), agrenting.ErrClosed)
}

func TestVerifyKnowsEveryKindOnTheEmbeddedPlatform(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{})
	key := srv.NewKey(agent.ID)
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{})
	session, _ := srv.NewSession(key.Secret)
	for name, cred := range map[string]agrenting.Credential{
		"key": agrenting.APIKey(key.Secret), "user token": agrenting.UserToken(token.Secret), "session": agrenting.SessionToken(session, time.Time{}),
	} {
		require.NoError(t, sdktest.ClientOf(t, srv, agrenting.WithCredential(cred)).Verify(t.Context()), name)
	}
	for name, cred := range map[string]agrenting.Credential{
		"key": agrenting.APIKey(sdktest.TestKey), "user token": agrenting.UserToken("ap_" + sdktest.TestKey), "session": agrenting.SessionToken(sdktest.TestKey, time.Time{}),
	} {
		require.ErrorIs(t, sdktest.ClientOf(t, srv, agrenting.WithCredential(cred)).Verify(t.Context()), agrenting.ErrUnauthorized, name)
	}
}
