package oauth2agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/oauth2agrenting"
)

func platform(t *testing.T) (srv *agrentingtest.Server, key agrentingtest.Key) {
	t.Helper()
	srv = agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	t.Cleanup(srv.Close)
	key = srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	return srv, key
}

func client(t *testing.T, srv *agrentingtest.Server, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

func TestTokenSource_transport_usesTheCredentialInUse(t *testing.T) {
	t.Parallel()
	srv, key := platform(t)
	c := client(t, srv, agrenting.WithCredential(agrenting.APIKey(key.Secret)), agrenting.WithSession())
	ts := oauth2agrenting.TokenSource(t.Context(), c)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	hc := &http.Client{Transport: &oauth2.Transport{Source: ts, Base: base}}
	get := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api/v1/agents", http.NoBody)
		require.NoError(t, err)
		resp, err := hc.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	assert.Equal(t, http.StatusOK, get())
	token, err := ts.Token()
	require.NoError(t, err)
	cred, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, cred.Reveal(), token.AccessToken)
	assert.True(t, cred.Expires().Equal(token.Expiry))
	assert.Equal(t, "Bearer", token.TokenType)

	srv.RevokeSessions()
	assert.Equal(t, http.StatusUnauthorized, get(), "the client cannot see this response")
	require.NoError(t, c.Verify(t.Context()))
	assert.Equal(t, http.StatusOK, get())
}

func TestTokenSource_nonBearerCredentials(t *testing.T) {
	t.Parallel()
	srv, key := platform(t)
	_, err := oauth2agrenting.TokenSource(t.Context(), client(t, srv, agrenting.WithCredential(agrenting.APIKey(key.Secret)))).Token()
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	require.ErrorContains(t, err, "WithSession")
	assert.NotContains(t, err.Error(), key.Secret)
	_, err = oauth2agrenting.TokenSource(t.Context(), client(t, srv, agrenting.WithAnonymous())).Token()
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = oauth2agrenting.TokenSource(ctx, client(t, srv, agrenting.WithCredential(agrenting.APIKey(key.Secret)), agrenting.WithSession())).Token()
	require.ErrorIs(t, err, context.Canceled)
}

// tokenServer issues sessions of the platform as OAuth tokens.
func tokenServer(t *testing.T, srv *agrentingtest.Server, key agrentingtest.Key) (config clientcredentials.Config, issued *atomic.Int64) {
	t.Helper()
	issued = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		issued.Add(1)
		token, _ := srv.NewSession(key.Secret)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":3600}`, token)
	}))
	t.Cleanup(s.Close)
	return clientcredentials.Config{ClientID: "id", ClientSecret: "secret", TokenURL: s.URL}, issued
}

func list(t *testing.T, c *agrenting.Client) error {
	t.Helper()
	_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	return err
}

func TestCredentialSourceFunc_rejectedToken_isReplaced(t *testing.T) {
	t.Parallel()
	srv, key := platform(t)
	config, issued := tokenServer(t, srv, key)
	c := client(t, srv, agrenting.WithCredentialSource(oauth2agrenting.CredentialSourceFunc(func() oauth2.TokenSource {
		return config.TokenSource(t.Context())
	})))
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() { assert.NoError(t, list(t, c)) })
	}
	callers.Wait()
	assert.EqualValues(t, 1, issued.Load())
	assert.InDelta(t, time.Hour.Seconds(), time.Until(c.Status().Expires).Seconds(), 30)
	srv.RevokeSessions()
	require.NoError(t, list(t, c))
	assert.EqualValues(t, 2, issued.Load())
}

func TestCredentialSource_rejectedToken_isKept(t *testing.T) {
	t.Parallel()
	srv, key := platform(t)
	config, issued := tokenServer(t, srv, key)
	c := client(t, srv, agrenting.WithCredentialSource(oauth2agrenting.CredentialSource(config.TokenSource(t.Context()))))
	require.NoError(t, list(t, c))
	srv.RevokeSessions()
	require.ErrorIs(t, list(t, c), agrenting.ErrUnauthorized)
	assert.EqualValues(t, 1, issued.Load())
}

type tokenFunc func() (*oauth2.Token, error)

func (f tokenFunc) Token() (*oauth2.Token, error) { return f() }

func TestCredentialSource_tokens_areChecked(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(time.Hour).Round(0)
	down := errors.New("token endpoint is down")
	for name, tc := range map[string]struct {
		ts oauth2.TokenSource
		is error
	}{
		"bearer":   {oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t1", Expiry: end}), nil},
		"MAC":      {oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t1", TokenType: "mac"}), agrenting.ErrInvalidCredential},
		"empty":    {oauth2.StaticTokenSource(&oauth2.Token{}), agrenting.ErrNoCredential},
		"no token": {tokenFunc(func() (*oauth2.Token, error) { return nil, nil }), agrenting.ErrNoCredential}, //nolint:nilnil // what is tested
		"error":    {tokenFunc(func() (*oauth2.Token, error) { return nil, down }), down},
		"nil":      {nil, agrenting.ErrNoCredential},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := oauth2agrenting.CredentialSource(tc.ts).Credential(t.Context())
			if tc.is != nil {
				require.ErrorIs(t, err, tc.is)
				return
			}
			require.NoError(t, err)
			assert.True(t, c.Equal(agrenting.SessionToken("t1", time.Time{})))
			assert.True(t, end.Equal(c.Expires()))
		})
	}
	_, err := oauth2agrenting.CredentialSource(tokenFunc(func() (*oauth2.Token, error) { panic("broken") })).Credential(t.Context())
	require.ErrorContains(t, err, "panicked")
}

func TestCredentialSource_hungToken_endsWithContext(t *testing.T) {
	t.Parallel()
	for name, reopens := range map[string]bool{"kept": false, "opened again": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				opened, calls := 0, new(atomic.Int64)
				hang := tokenFunc(func() (*oauth2.Token, error) {
					if calls.Add(1) == 1 {
						<-release
					}
					return &oauth2.Token{AccessToken: "t1"}, nil
				})
				src := oauth2agrenting.CredentialSource(hang)
				if reopens {
					src = oauth2agrenting.CredentialSourceFunc(func() oauth2.TokenSource { opened++; return hang })
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := src.Credential(ctx)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				again, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err = src.Credential(again)
				if reopens {
					require.NoError(t, err)
					assert.Equal(t, 2, opened)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
					assert.EqualValues(t, 1, calls.Load(), "no other call is made in the meantime")
				}
				close(release)
				synctest.Wait()
			})
		})
	}
}

func TestCredentialSourceFunc_hungOpen_endsWithContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		src := oauth2agrenting.CredentialSourceFunc(func() oauth2.TokenSource {
			<-release
			return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t1"})
		})
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := src.Credential(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
		close(release)
		_, err := src.Credential(t.Context())
		require.NoError(t, err)
		synctest.Wait()
	})
}

func TestPanic_isAnErrorWithoutItsValue(t *testing.T) {
	t.Parallel()
	for name, src := range map[string]agrenting.CredentialSource{
		"Token": oauth2agrenting.CredentialSource(tokenFunc(func() (*oauth2.Token, error) { panic("client_secret hunter2") })),
		"open":  oauth2agrenting.CredentialSourceFunc(func() oauth2.TokenSource { panic("client_secret hunter2") }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 {
				_, err := src.Credential(t.Context())
				require.EqualError(t, err, "oauth2agrenting: the token source panicked with a string")
			}
		})
	}
}

func TestCredentialSourceFunc_opensOnce(t *testing.T) {
	t.Parallel()
	opened := 0
	src := oauth2agrenting.CredentialSourceFunc(func() oauth2.TokenSource {
		opened++
		return oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t1"})
	})
	for range 3 {
		_, err := src.Credential(t.Context())
		require.NoError(t, err)
	}
	assert.Equal(t, 1, opened)
}
