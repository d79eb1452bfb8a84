package agrenting_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestAuthenticateReadsEveryDocumentedAnswer(t *testing.T) {
	t.Parallel()
	const token = "st_Zq7Wm3Xp9"
	expires := time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)
	cases := map[string]struct {
		body        string
		expires     time.Time
		agent, name string
	}{
		"live":             {`{"data":{"session_token":"` + token + `","expires_at":"2026-12-24T18:00:00Z"}}`, expires, "", ""},
		"documented":       {`{"data":{"token":"` + token + `","agent":{"id":"a1","name":"Scribe"}}}`, time.Time{}, "a1", "Scribe"},
		"both":             {`{"data":{"token":"other","session_token":"` + token + `","expires_at":"2026-12-24T18:00:00Z","agent":{"id":"a1"}},"meta":{}}`, expires, "a1", ""},
		"no envelope":      {`{"session_token":"` + token + `","expires_at":"2026-12-24T18:00:00Z"}`, expires, "", ""},
		"flat agent id":    {`{"data":{"session_token":"` + token + `","agent_id":"a1"}}`, time.Time{}, "a1", ""},
		"another offset":   {`{"data":{"token":"` + token + `","expires_at":"2026-12-24T20:00:00+02:00"}}`, expires, "", ""},
		"fractions":        {`{"data":{"token":"` + token + `","expires_at":"2026-12-24T18:00:00.000000Z"}}`, expires, "", ""},
		"no zone":          {`{"data":{"token":"` + token + `","expires_at":"2026-12-24T18:00:00"}}`, expires, "", ""},
		"Unix seconds":     {`{"data":{"token":"` + token + `","expires_at":1798135200}}`, expires, "", ""},
		"past":             {`{"data":{"token":"` + token + `","expires_at":"2001-01-01T00:00:00Z"}}`, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC), "", ""},
		"null expiry":      {`{"data":{"token":"` + token + `","expires_at":null}}`, time.Time{}, "", ""},
		"no time":          {`{"data":{"token":"` + token + `","expires_at":"in a while"}}`, time.Time{}, "", ""},
		"an object":        {`{"data":{"token":"` + token + `","expires_at":{"at":1}}}`, time.Time{}, "", ""},
		"negative":         {`{"data":{"token":"` + token + `","expires_at":-1}}`, time.Time{}, "", ""},
		"milliseconds":     {`{"data":{"token":"` + token + `","expires_at":1798135200000}}`, time.Time{}, "", ""},
		"white space":      {`{"data":{"session_token":" ` + token + `\n"}}`, time.Time{}, "", ""},
		"odd other fields": {`{"data":{"session_token":17,"token":"` + token + `","agent":["x"],"agent_id":{}},"meta":7}`, time.Time{}, "", ""},
		"OAuth's name":     {`{"access_token":"` + token + `"}`, time.Time{}, "", ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := sdktest.Answering(http.StatusOK, tc.body, "Date", "Sun, 22 Nov 2026 20:00:00 GMT")
			got, err := sdktest.Keyed(t, base).Sessions.Authenticate(t.Context())
			require.NoError(t, err)
			assert.Equal(t, token, got.Credential.Reveal())
			assert.Equal(t, agrenting.KindSession, got.Credential.Kind())
			assert.True(t, tc.expires.Equal(got.Credential.Expires()), got.Credential.Expires())
			assert.Equal(t, tc.agent, got.AgentID)
			assert.Equal(t, tc.name, got.AgentName)
			assert.True(t, time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC).Equal(got.Issued))
		})
	}
}

func TestAuthenticateReadsEveryShapeOfThePlatform(t *testing.T) {
	t.Parallel()
	shapes := []agrentingtest.SessionShape{
		agrentingtest.ShapeLive, agrentingtest.ShapeDocs, agrentingtest.ShapeBoth,
		agrentingtest.ShapeBadExpiry, agrentingtest.ShapePastExpiry, agrentingtest.ShapeFlat,
	}
	for _, shape := range shapes {
		t.Run(shape.String(), func(t *testing.T) {
			t.Parallel()
			srv := sdktest.MemoryServer(t, agrentingtest.WithSessionShape(shape), agrentingtest.WithSessionTTL(time.Hour))
			agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
			got, err := sdktest.ClientOf(t, srv, agrenting.WithCredential(agrenting.APIKey(srv.NewKey(agent.ID).Secret))).Sessions.Authenticate(t.Context())
			require.NoError(t, err)
			// Whatever it says of its expiry, it works.
			c := sdktest.ClientOf(t, srv, agrenting.WithCredential(got.Credential))
			_, err = c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.NoError(t, err)
			if shape == agrentingtest.ShapeLive || shape == agrentingtest.ShapeFlat {
				assert.WithinDuration(t, time.Now().Add(time.Hour), got.Credential.Expires(), time.Minute)
			}
			if shape == agrentingtest.ShapeDocs {
				assert.Equal(t, agent.ID, got.AgentID)
				assert.Equal(t, "Scribe", got.AgentName)
				assert.True(t, got.Credential.Expires().IsZero())
			}
		})
	}
}

func TestAuthenticateSendsOnlyTheKey(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		cred   agrenting.Credential
		opts   []agrenting.Option
		header string
	}{
		"api key":       {agrenting.APIKey(sdktest.TestKey), nil, "X-Api-Key"},
		"by its alias":  {agrenting.APIKey(sdktest.TestKey), []agrenting.Option{agrenting.WithAPIKeyHeader("api-key")}, "Api-Key"},
		"user token":    {agrenting.UserToken("ap_" + sdktest.TestKey), nil, "X-Api-Key"},
		"with an agent": {agrenting.APIKey(sdktest.TestKey), []agrenting.Option{agrenting.WithAgentID("agent-1")}, "X-Api-Key"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := sdktest.Answering(http.StatusOK, `{"data":{"token":"st_1"}}`)
			_, err := sdktest.ClientOver(t, base, agrenting.Static(tc.cred), tc.opts...).Sessions.Authenticate(t.Context())
			require.NoError(t, err)
			got := base.Only(t)
			assert.Equal(t, "POST", got.Method)
			assert.Equal(t, sdktest.APIURL+"/api/v1/auth/authenticate", got.URL)
			assert.Equal(t, map[string][]string{tc.header: {tc.cred.Reveal()}}, got.Credentials())
			assert.Empty(t, got.Body)
		})
	}
}

func TestTheExchangedSessionStandsForItsKey(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, `{"data":{"token":"st_1"}}`)
	got, err := sdktest.ClientOver(t, base, agrenting.Static(agrenting.APIKey("sk_sandbox_x"))).Sessions.Authenticate(t.Context())
	require.NoError(t, err)
	assert.Equal(t, agrenting.Sandbox, got.Credential.Environment())
	_, err = agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithEnvironment(agrenting.Production), agrenting.WithCredential(got.Credential))
	require.ErrorIs(t, err, agrenting.ErrEnvironmentMismatch)
}

func TestUnexchangeableCredentialIsNotSent(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		opt agrenting.Option
		is  error
	}{
		"a session": {agrenting.WithCredential(agrenting.SessionToken("st_1", time.Time{})), agrenting.ErrInvalidCredential},
		"nothing":   {agrenting.WithAnonymous(), agrenting.ErrNoCredential},
	} {
		base := sdktest.Answering(http.StatusOK, "{}")
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(base), tc.opt)
		require.NoError(t, err)
		_, err = c.Sessions.Authenticate(t.Context())
		require.ErrorIs(t, err, tc.is, name)
		assert.Empty(t, base.Requests())
		require.NoError(t, c.Close())
	}
}

func TestAnAnswerWithoutASessionIsMalformed(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		``, `null`, `{}`, `[]`, `{"data":null}`, `{"data":"x"}`, `{"data":{"token":""}}`, `{"data":{"token":17}}`,
		`{"data":{"token":"a b"}}`, `{"data":{"token":"a\r\nX-Evil: 1"}}`, `<html>`, `{"data":{"token":"st_`,
	} {
		_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, body)).Sessions.Authenticate(t.Context())
		require.ErrorIs(t, err, agrenting.ErrMalformedResponse, body)
		require.ErrorContains(t, err, "POST /api/v1/auth/authenticate", body)
		sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
	}
}

func TestAuthenticate_unusableToken_isInvalidCredential(t *testing.T) {
	t.Parallel()
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"data":{"token":"a b"}}`)).Sessions.Authenticate(t.Context())
	require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	assert.Contains(t, err.Error(), "the session")
}

func TestALockoutSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	const body = `{"errors":[{"code":"RATE_LIMIT_EXCEEDED","message":"m"}]}`
	for header, want := range map[string]time.Duration{"": 5 * time.Minute, "soon": 5 * time.Minute, "0": time.Second, "120": 2 * time.Minute} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				base := sdktest.Answering(http.StatusTooManyRequests, body, "Retry-After", header)
				_, err := sdktest.Keyed(t, base).Sessions.Authenticate(t.Context())
				require.ErrorIs(t, err, agrenting.ErrLockedOut)
				require.ErrorIs(t, err, agrenting.ErrRateLimited)
				var lockout *agrenting.LockoutError
				require.ErrorAs(t, err, &lockout)
				assert.Equal(t, want, time.Until(lockout.RetryAt))
				base.Only(t)
			})
		})
	}
}

func TestEleventhExchangeInAMinuteIsLockout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := agrentingtest.NewServer(agrentingtest.InMemory())
		defer srv.Close()
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport()),
			agrenting.WithCredential(agrenting.APIKey(srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret)))
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		for range 10 {
			_, err := c.Sessions.Authenticate(t.Context())
			require.NoError(t, err)
		}
		_, err = c.Sessions.Authenticate(t.Context())
		var lockout *agrenting.LockoutError
		require.ErrorAs(t, err, &lockout)
		assert.InDelta(t, 5*time.Minute, time.Until(lockout.RetryAt), float64(2*time.Second))
		sdktest.LetPass(time.Until(lockout.RetryAt))
		_, err = c.Sessions.Authenticate(t.Context())
		require.NoError(t, err, "it is over then")
	})
}

func TestTheKeyFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	for _, code := range []int{301, 302, 303, 307, 308} {
		for name, target := range map[string]string{"another host": "https://evil.example/", "the same host": "/elsewhere"} {
			base := sdktest.Answering(code, "", "Location", target)
			_, err := sdktest.Keyed(t, base).Sessions.Authenticate(t.Context())
			require.ErrorIs(t, err, agrenting.ErrForeignOrigin, name)
			require.ErrorContains(t, err, "are different hosts")
			var api *agrenting.APIError
			require.ErrorAs(t, err, &api)
			assert.Equal(t, code, api.StatusCode)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			base.Only(t)
		}
	}
}

func TestARefusedExchangeIsTypedAndNotRepeated(t *testing.T) {
	t.Parallel()
	for code, is := range map[int]error{401: agrenting.ErrUnauthorized, 403: agrenting.ErrForbidden, 404: agrenting.ErrNotFound, 503: agrenting.ErrServer} {
		body := `{"meta":{"request_id":"req_1"},"errors":[{"code":"C","message":"you sent ` + sdktest.TestKey + `"}]}`
		base := sdktest.Answering(code, body)
		_, err := sdktest.Keyed(t, base).Sessions.Authenticate(t.Context())
		require.ErrorIs(t, err, is)
		require.ErrorContains(t, err, "req_1")
		sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
		base.Only(t)
	}
	// The endpoint's body is not shown unless it is a readable error.
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusForbidden, "token st_Zq7Wm3Xp9Rt5Kv2")).Sessions.Authenticate(t.Context())
	sdktest.AssertClean(t, err.Error(), "st_Zq7Wm3Xp9Rt5Kv2")
	_, err = sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"errors":[{"code":"C","message":"m"}]}`)).Sessions.Authenticate(t.Context())
	var api *agrenting.APIError
	require.ErrorAs(t, err, &api)
	assert.Equal(t, "C", api.Code, "errors in a success are a failure here too")
}

func TestTheExchangesBodyIsBounded(t *testing.T) {
	t.Parallel()
	var n sdktest.Counter
	base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
		resp := sdktest.Reply(http.StatusOK, "")
		resp.Body = io.NopCloser(io.TeeReader(sdktest.Endless{}, &n))
		return resp, nil
	})
	_, err := sdktest.Keyed(t, base).Sessions.Authenticate(t.Context())
	require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
	assert.LessOrEqual(t, n.Bytes(), 1<<20)
}

func TestExchangeEndsWithContextOrTimeout(t *testing.T) {
	t.Parallel()
	waiting := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, req.Context().Err()
	})
	synctest.Test(t, func(t *testing.T) {
		c := sdktest.Keyed(t, waiting, agrenting.WithTimeout(3*time.Second))
		_, err := c.Sessions.Authenticate(t.Context())
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "WithTimeout")
		ctx, cancel := context.WithCancelCause(t.Context())
		errStop := errors.New("stop")
		cancel(errStop)
		_, err = c.Sessions.Authenticate(ctx)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, errStop)
	})
}

func TestAnExchangesConnectionErrorNamesTheCallAlone(t *testing.T) {
	t.Parallel()
	base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Post", URL: sdktest.APIURL + "/?api_key=" + sdktest.TestKey, Err: io.EOF}
	})
	_, err := sdktest.Keyed(t, base).Sessions.Authenticate(t.Context())
	require.ErrorIs(t, err, io.EOF)
	require.ErrorContains(t, err, "POST /api/v1/auth/authenticate: the connection was closed before a response arrived")
	sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
}

func TestTheRouteOfTheExchangeCanBeChanged(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t, agrentingtest.WithAuthPath("/v2/login"))
	key := agrenting.WithCredential(agrenting.APIKey(srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret))
	_, err := sdktest.ClientOf(t, srv, key).Sessions.Authenticate(t.Context())
	require.ErrorIs(t, err, agrenting.ErrRouteNotFound)
	_, err = sdktest.ClientOf(t, srv, key, agrenting.WithRoutes(agrenting.Routes{Authenticate: "/v2/login"})).Sessions.Authenticate(t.Context())
	require.NoError(t, err)
}

func TestLogoutEndsTheSession(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	key := agrenting.APIKey(srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID).Secret)
	byKey := sdktest.ClientOf(t, srv, agrenting.WithCredential(key))
	alive := func(c *agrenting.Client) error {
		_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
		return err
	}
	sessions := make([]*agrenting.Client, 3)
	for i := range sessions {
		s, err := byKey.Sessions.Authenticate(t.Context())
		require.NoError(t, err)
		sessions[i] = sdktest.ClientOf(t, srv, agrenting.WithCredential(s.Credential))
	}
	require.NoError(t, sessions[0].Sessions.Logout(t.Context()))
	require.ErrorIs(t, alive(sessions[0]), agrenting.ErrUnauthorized)
	require.NoError(t, alive(sessions[1]), "a session ends itself alone")
	require.NoError(t, byKey.Sessions.Logout(t.Context()))
	require.ErrorIs(t, alive(sessions[1]), agrenting.ErrUnauthorized)
	require.ErrorIs(t, alive(sessions[2]), agrenting.ErrUnauthorized, "a key ends all of its sessions")
	require.NoError(t, alive(byKey))
	require.ErrorIs(t, sessions[0].Sessions.Logout(t.Context()), agrenting.ErrUnauthorized)

	base := sdktest.Answering(http.StatusNoContent, "")
	require.NoError(t, sdktest.Keyed(t, base, agrenting.WithRoutes(agrenting.Routes{Logout: "/bye"})).Sessions.Logout(t.Context()), "204 will do")
	got := base.Only(t)
	assert.Equal(t, "DELETE "+sdktest.APIURL+"/bye", got.Method+" "+got.URL)
}
