package agrenting_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/wire"
)

func TestAnAuthorizationIsForPinnedOriginsOnly(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, &sdktest.Recorder{}, agrenting.WithBaseURL("https://api.agrenting.test/v"), agrenting.WithAllowedOrigins("https://mcp.agrenting.test:8443", "http://127.0.0.1:4000"))
	for _, url := range []string{
		"https://api.agrenting.test/anything?q=1", "wss://api.agrenting.test/socket", "WSS://API.agrenting.test:443/socket",
		"https://mcp.agrenting.test:8443", "ws://127.0.0.1:4000/socket",
	} {
		a, err := c.Authorize(t.Context(), url)
		require.NoError(t, err, url)
		assert.Equal(t, http.Header{"X-Api-Key": {sdktest.TestKey}}, a.Header(), url)
	}
	for url, want := range map[string]error{
		"https://evil.test/":                    agrenting.ErrForeignOrigin,
		"https://api.agrenting.test.evil.test/": agrenting.ErrForeignOrigin,
		"https://mcp.agrenting.test/":           agrenting.ErrForeignOrigin,
		"wss://evil.test/socket":                agrenting.ErrForeignOrigin,
		"http://127.0.0.1:4001/":                agrenting.ErrForeignOrigin,
		"http://api.agrenting.test/":            agrenting.ErrInsecureURL,
		"ws://api.agrenting.test/socket":        agrenting.ErrInsecureURL,
		"/api/v1/tasks":                         agrenting.ErrInvalidOption,
		"":                                      agrenting.ErrInvalidOption,
		"wss:":                                  agrenting.ErrInvalidOption,
		"ftp://api.agrenting.test/":             agrenting.ErrInvalidOption,
		"https://user:" + sdktest.TestKey + "@evil.test/": agrenting.ErrInvalidOption,
		"https://api.agrenting.test\\@evil.test/":         agrenting.ErrInvalidOption,
		"https://evil.test/?next=//api.agrenting.test":    agrenting.ErrForeignOrigin,
	} {
		_, err := c.Authorize(t.Context(), url)
		require.ErrorIs(t, err, want, url)
		sdktest.AssertNoSecret(t, err.Error(), sdktest.TestKey)
	}
}

func TestAnAuthorizationHasTheHeadersOfARequest(t *testing.T) {
	t.Parallel()
	const one, other = "6f1f1b0e-9d0f-4d39-8a51-94f9e0d4c7a1", "did:agrenting:other"
	for name, tc := range map[string]struct {
		cred agrenting.Credential
		opts []agrenting.Option
		ctx  func(context.Context) context.Context
	}{
		"key":            {cred: agrenting.APIKey(sdktest.TestKey)},
		"key, other way": {cred: agrenting.APIKey(sdktest.TestKey), opts: []agrenting.Option{agrenting.WithAPIKeyHeader("Api-Key")}},
		"user token":     {cred: agrenting.UserToken("ap_" + sdktest.TestKey)},
		"session":        {cred: agrenting.SessionToken(sdktest.TestKey, time.Time{})},
		"an agent":       {cred: agrenting.UserToken("ap_" + sdktest.TestKey), opts: []agrenting.Option{agrenting.WithAgentID(one)}},
		"agent of a call": {
			cred: agrenting.UserToken("ap_" + sdktest.TestKey), opts: []agrenting.Option{agrenting.WithAgentID(one)},
			ctx: func(ctx context.Context) context.Context { return agrenting.ContextWithAgent(ctx, other) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if tc.ctx != nil {
				ctx = tc.ctx(ctx)
			}
			base := &sdktest.Recorder{}
			c := sdktest.ClientOver(t, base, agrenting.Static(tc.cred), tc.opts...)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, sdktest.APIURL+"/x", http.NoBody)
			require.NoError(t, err)
			resp, err := c.Transport().RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			a, err := c.Authorize(ctx, sdktest.APIURL)
			require.NoError(t, err)
			assert.Equal(t, base.Only(t).Header, a.Header())
			for _, values := range a.Header() {
				values[0] = "scribbled"
			}
			assert.Equal(t, base.Only(t).Header, a.Header(), "each caller has its own")
		})
	}
	_, err := sdktest.Keyed(t, &sdktest.Recorder{}).Authorize(agrenting.ContextWithAgent(t.Context(), "no agent"), sdktest.APIURL)
	require.ErrorIs(t, err, agrenting.ErrInvalidAgentID)
	anonymous, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithAnonymous())
	require.NoError(t, err)
	_, err = anonymous.Authorize(t.Context(), sdktest.APIURL)
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
	require.NoError(t, anonymous.Close())
	_, err = anonymous.Authorize(t.Context(), sdktest.APIURL)
	require.ErrorIs(t, err, agrenting.ErrClosed)
}

func TestARejectedAuthorizationIsRenewedOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		c := w.Client()
		const dialers = 100
		all := make([]*agrenting.Authorization, dialers)
		for i := range all {
			a, err := c.Authorize(t.Context(), w.Server.URL)
			require.NoError(t, err)
			all[i] = a
		}
		sdktest.Advance(10 * time.Second) // all nodes know the session by now
		w.Server.RevokeSessions()
		var wg sync.WaitGroup
		for _, a := range all {
			wg.Go(func() {
				next, err := a.Rejected(t.Context())
				if assert.NoError(t, err) {
					assert.NotEqual(t, a.Header(), next.Header())
				}
			})
		}
		wg.Wait()
		assert.Equal(t, 2, w.Exchanges())
		sdktest.Advance(time.Second)
		assert.Equal(t, 3+1, w.Server.Count("GET /api/v1/hirings/pending"), "asked once for all, and about the new session")
		require.NoError(t, w.Call(c))
		assert.Zero(t, w.Unauthorized(), "the client has learned of it")
		require.NoError(t, c.Close())
	})
}

func TestRejectionsEndWithoutAnotherCredential(t *testing.T) {
	t.Parallel()
	fixed, err := sdktest.Keyed(t, &sdktest.Recorder{}).Authorize(t.Context(), sdktest.APIURL)
	require.NoError(t, err)
	_, err = fixed.Rejected(t.Context())
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	sdktest.AssertNoSecret(t, err.Error(), sdktest.TestKey)

	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		c := w.Client()
		a, err := c.Authorize(t.Context(), w.Server.URL)
		require.NoError(t, err)
		began, tries := time.Now(), 0
		for ; err == nil; tries++ {
			a, err = a.Rejected(t.Context())
		}
		require.ErrorIs(t, err, agrenting.ErrUnauthorized)
		assert.LessOrEqual(t, tries, 8, "the platform accepts the session when asked, so something else is refused")
		assert.Less(t, time.Since(began), 4*time.Second)
		assert.Equal(t, 1, w.Exchanges(), "the session is alive")
		require.NoError(t, c.Close())
	})
}

func TestAnAuthorizationWaitsForARotationInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1})
		before, err := c.Authorize(t.Context(), w.Server.URL)
		require.NoError(t, err)
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.Delay(5*time.Second))
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context())
			done <- err
		}()
		sdktest.Advance(time.Second)
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Authorize(hasty, w.Server.URL)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		a, err := c.Authorize(t.Context(), w.Server.URL)
		require.NoError(t, err)
		assert.True(t, w.Server.KeyAlive(a.Header().Get(wire.HeaderAPIKey)))
		require.NoError(t, <-done)
		late, err := before.Rejected(t.Context())
		require.NoError(t, err)
		assert.Equal(t, a.Header(), late.Header(), "it takes the key that is in use already")
		began := time.Now()
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		assert.Less(t, time.Since(began), agrenting.DefaultDrain, "the gate is empty")
		require.NoError(t, c.Close())
	})
}

// Those who sent their request before the rotation are refused in the middle of
// it, when the SDK is about to get them the next session anyway.
func TestRejectionDuringRotationKeepsSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		platform := w.Server.Transport()
		base := sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := platform.RoundTrip(req)
			if strings.HasSuffix(req.URL.Path, "/rotate-key") {
				return resp, errors.Join(err, renew.Sleep(req.Context(), 5*time.Second)) // the response takes its time
			}
			return resp, err
		})
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}, agrenting.WithSession(), agrenting.WithTransport(base))
		before, err := c.Authorize(t.Context(), w.Server.URL)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context())
			done <- err
		}()
		sdktest.Advance(2 * time.Second)
		next, err := before.Rejected(t.Context())
		require.NoError(t, err)
		require.NoError(t, <-done)
		last, err := c.Authorize(t.Context(), w.Server.URL)
		require.NoError(t, err)
		assert.Equal(t, last.Header(), next.Header())
		assert.Equal(t, 2, w.Server.Count(sdktest.RouteAuthenticate), "one before the rotation, one after it")
		require.NoError(t, c.Close())
	})
}

// A reconnecting socket that keeps its Authorization: it works for hours each
// time, and after the fourth end of a session it is refused for ever.
func TestLongLivedAuthorizationKeepsItsResends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		c := w.Client()
		a, err := c.Authorize(t.Context(), w.Server.URL)
		require.NoError(t, err)
		for n := range 10 {
			require.Equal(t, http.StatusOK, w.Dial(a), n)
			sdktest.Advance(3 * time.Hour)
			w.Server.RevokeSessions()
			require.Equal(t, http.StatusUnauthorized, w.Dial(a), n)
			a, err = a.Rejected(t.Context())
			require.NoError(t, err, "death %d", n+1)
		}
		require.NoError(t, c.Close())
	})
}

func TestRejectedRespectsItsContext(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	c := w.Client()
	a, err := c.Authorize(t.Context(), w.Server.URL)
	require.NoError(t, err)
	w.Server.RevokeSessions()
	a, err = a.Rejected(t.Context())
	require.NoError(t, err)
	w.Server.RevokeSessions()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Rejected(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, agrenting.ErrUnauthorized, "another session is available")
}

func TestRejectedAsksNoSourceAfterClose(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	c := w.Client()
	a, err := c.Authorize(t.Context(), w.Server.URL)
	require.NoError(t, err)
	w.Server.RevokeSessions()
	a, err = a.Rejected(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close())
	n := len(w.Server.Requests())
	_, err = a.Rejected(t.Context())
	require.ErrorIs(t, err, agrenting.ErrClosed)
	assert.Len(t, w.Server.Requests(), n, "a closed client makes no calls")

	fixed, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()), agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)))
	require.NoError(t, err)
	a, err = fixed.Authorize(t.Context(), w.Server.URL)
	require.NoError(t, err)
	require.NoError(t, fixed.Close())
	_, err = a.Rejected(t.Context())
	require.ErrorIs(t, err, agrenting.ErrClosed)
}

// A bad hour of the platform, over by now, must not leave its mark on a client
// that only authorizes.
func TestAuthorizeOnlyClientRecovers(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"authorize", "transport"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				kill := 0
				platform := w.Server.Transport()
				base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/api/v1/agents" && kill > 0 {
						kill--
						w.Server.RevokeSessions()
					}
					return platform.RoundTrip(r)
				})
				c := w.Client(agrenting.WithTransport(base))
				try := func() error {
					if how == "transport" {
						_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
						return err
					}
					a, err := c.Authorize(t.Context(), w.Server.URL)
					for err == nil {
						req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.Server.URL+"/api/v1/agents", http.NoBody)
						req.Header = a.Header()
						resp, terr := base.RoundTrip(req)
						require.NoError(t, terr)
						_ = resp.Body.Close()
						if resp.StatusCode != http.StatusUnauthorized {
							return nil
						}
						a, err = a.Rejected(t.Context())
					}
					return err
				}
				require.NoError(t, try())
				for range 2 { // each new session is dead
					kill = 100
					require.Error(t, try())
					kill = 0
					sdktest.Advance(10 * time.Minute)
				}
				// It is over: for hours all is well, with an end of a session now and then.
				for range 20 {
					kill = 1
					require.NoError(t, try())
					sdktest.Advance(2 * time.Hour)
				}
				kill = 2 // once, two in a row
				assert.NoError(t, try())
				require.NoError(t, c.Close())
			})
		})
	}
}
