package agrenting

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

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/wire"
)

func TestAnAuthorizationIsForPinnedOriginsOnly(t *testing.T) {
	t.Parallel()
	c := keyed(t, &recorder{}, WithBaseURL("https://api.agrenting.test/v"), WithAllowedOrigins("https://mcp.agrenting.test:8443", "http://127.0.0.1:4000"))
	for _, url := range []string{
		"https://api.agrenting.test/anything?q=1", "wss://api.agrenting.test/socket", "WSS://API.agrenting.test:443/socket",
		"https://mcp.agrenting.test:8443", "ws://127.0.0.1:4000/socket",
	} {
		a, err := c.Authorize(t.Context(), url)
		require.NoError(t, err, url)
		assert.Equal(t, http.Header{"X-Api-Key": {testKey}}, a.Header(), url)
	}
	for url, want := range map[string]error{
		"https://evil.test/":                           ErrForeignOrigin,
		"https://api.agrenting.test.evil.test/":        ErrForeignOrigin,
		"https://mcp.agrenting.test/":                  ErrForeignOrigin,
		"wss://evil.test/socket":                       ErrForeignOrigin,
		"http://127.0.0.1:4001/":                       ErrForeignOrigin,
		"http://api.agrenting.test/":                   ErrInsecureURL,
		"ws://api.agrenting.test/socket":               ErrInsecureURL,
		"/api/v1/tasks":                                ErrInvalidOption,
		"":                                             ErrInvalidOption,
		"wss:":                                         ErrInvalidOption,
		"ftp://api.agrenting.test/":                    ErrInvalidOption,
		"https://user:" + testKey + "@evil.test/":      ErrInvalidOption,
		"https://api.agrenting.test\\@evil.test/":      ErrInvalidOption,
		"https://evil.test/?next=//api.agrenting.test": ErrForeignOrigin,
	} {
		_, err := c.Authorize(t.Context(), url)
		require.ErrorIs(t, err, want, url)
		assertNoSecret(t, err.Error(), testKey)
	}
}

func TestAnAuthorizationHasTheHeadersOfARequest(t *testing.T) {
	t.Parallel()
	const one, other = "6f1f1b0e-9d0f-4d39-8a51-94f9e0d4c7a1", "did:agrenting:other"
	for name, tc := range map[string]struct {
		cred Credential
		opts []Option
		ctx  func(context.Context) context.Context
	}{
		"key":            {cred: APIKey(testKey)},
		"key, other way": {cred: APIKey(testKey), opts: []Option{WithAPIKeyHeader("Api-Key")}},
		"user token":     {cred: UserToken("ap_" + testKey)},
		"session":        {cred: SessionToken(testKey, time.Time{})},
		"an agent":       {cred: UserToken("ap_" + testKey), opts: []Option{WithAgentID(one)}},
		"agent of a call": {
			cred: UserToken("ap_" + testKey), opts: []Option{WithAgentID(one)},
			ctx: func(ctx context.Context) context.Context { return ContextWithAgent(ctx, other) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if tc.ctx != nil {
				ctx = tc.ctx(ctx)
			}
			base := &recorder{}
			c := clientOver(t, base, Static(tc.cred), tc.opts...)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, apiURL+"/x", http.NoBody)
			require.NoError(t, err)
			resp, err := c.Transport().RoundTrip(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			a, err := c.Authorize(ctx, apiURL)
			require.NoError(t, err)
			assert.Equal(t, base.only(t).header, a.Header())
			for _, values := range a.Header() {
				values[0] = "scribbled"
			}
			assert.Equal(t, base.only(t).header, a.Header(), "each caller has its own")
		})
	}
	_, err := keyed(t, &recorder{}).Authorize(ContextWithAgent(t.Context(), "no agent"), apiURL)
	require.ErrorIs(t, err, ErrInvalidAgentID)
	anonymous, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithAnonymous())
	require.NoError(t, err)
	_, err = anonymous.Authorize(t.Context(), apiURL)
	require.ErrorIs(t, err, ErrNoCredential)
	require.NoError(t, anonymous.Close())
	_, err = anonymous.Authorize(t.Context(), apiURL)
	require.ErrorIs(t, err, ErrClosed)
}

func TestARejectedAuthorizationIsRenewedOnceForAll(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	c := w.client()
	const dialers = 100
	all := make([]*Authorization, dialers)
	for i := range all {
		a, err := c.Authorize(t.Context(), w.srv.URL)
		require.NoError(t, err)
		all[i] = a
	}
	w.srv.RevokeSessions()
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
	assert.Equal(t, 2, w.bought())
	require.NoError(t, w.call(c))
	assert.Zero(t, w.unauthorized(), "the client has learned of it")
}

func TestRejectionsEndWhereThereIsNothingElseToTry(t *testing.T) {
	t.Parallel()
	fixed, err := keyed(t, &recorder{}).Authorize(t.Context(), apiURL)
	require.NoError(t, err)
	_, err = fixed.Rejected(t.Context())
	require.ErrorIs(t, err, ErrUnauthorized)
	assertNoSecret(t, err.Error(), testKey)

	w := newSessionWorld(t)
	c := w.client()
	a, err := c.Authorize(t.Context(), w.srv.URL)
	require.NoError(t, err)
	tries := 0
	for ; err == nil; tries++ {
		a, err = a.Rejected(t.Context())
	}
	require.ErrorIs(t, err, ErrUnauthorized)
	assert.Equal(t, 2, tries, "the second one is known to the platform, so something else is refused")
	assert.Equal(t, 2, w.bought())
}

func TestAnAuthorizationWaitsForARotationInPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: InPlace, Every: -1})
		before, err := c.Authorize(t.Context(), w.srv.URL)
		require.NoError(t, err)
		w.srv.Fault(routeRotate, agrentingtest.Delay(5*time.Second))
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context())
			done <- err
		}()
		advance(time.Second)
		hasty, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Authorize(hasty, w.srv.URL)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		a, err := c.Authorize(t.Context(), w.srv.URL)
		require.NoError(t, err)
		assert.True(t, w.srv.KeyAlive(a.Header().Get(wire.HeaderAPIKey)))
		require.NoError(t, <-done)
		late, err := before.Rejected(t.Context())
		require.NoError(t, err)
		assert.Equal(t, a.Header(), late.Header(), "it takes the key that is in use already")
		began := time.Now()
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		assert.Less(t, time.Since(began), defaultDrain, "nobody is left inside the gate")
		require.NoError(t, c.Close())
	})
}

// Those who sent their request before the rotation are refused in the middle of
// it, when the SDK is about to get them the next session anyway.
func TestARejectionInTheMiddleOfARotationCostsNoSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		platform := w.srv.Transport()
		base := tripFunc(func(req *http.Request) (*http.Response, error) {
			resp, err := platform.RoundTrip(req)
			if strings.HasSuffix(req.URL.Path, "/rotate-key") {
				return resp, errors.Join(err, renew.Sleep(req.Context(), 5*time.Second)) // the answer takes its time
			}
			return resp, err
		})
		c := w.client(MemoryStore(), RotationPolicy{Strategy: InPlace, Every: -1}, WithSession(), WithTransport(base))
		before, err := c.Authorize(t.Context(), w.srv.URL)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := c.Rotate(t.Context())
			done <- err
		}()
		advance(2 * time.Second)
		next, err := before.Rejected(t.Context())
		require.NoError(t, err)
		require.NoError(t, <-done)
		last, err := c.Authorize(t.Context(), w.srv.URL)
		require.NoError(t, err)
		assert.Equal(t, last.Header(), next.Header())
		assert.Equal(t, 2, w.srv.Count(routeAuthenticate), "one before the rotation, one after it")
		require.NoError(t, c.Close())
	})
}

func TestAnAuthorizationPrintsNoSecret(t *testing.T) {
	t.Parallel()
	a, err := clientOver(t, &recorder{}, Static(APIKey(probeSecret)), WithEnvironment(Sandbox)).Authorize(t.Context(), apiURL)
	require.NoError(t, err)
	probe(t, "authorization", a, probeSecret)
	probe(t, "authorization by value", *a, probeSecret)
	assert.Contains(t, a.String(), APIKey(probeSecret).Fingerprint())
}

// dial is a handshake of a library with a network of its own.
func (w *sessionWorld) dial(a *Authorization) int {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.srv.URL+"/api/v1/agents", http.NoBody)
	require.NoError(w.t, err)
	req.Header = a.Header()
	resp, err := w.srv.Transport().RoundTrip(req)
	require.NoError(w.t, err)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// A reconnecting socket that keeps its Authorization: it works for hours each
// time, and after the fourth end of a session it is refused for ever.
func TestAnAuthorizationThatWorkedForHoursIsNotWorn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		c := w.client()
		a, err := c.Authorize(t.Context(), w.srv.URL)
		require.NoError(t, err)
		for n := range 10 {
			require.Equal(t, http.StatusOK, w.dial(a), n)
			advance(3 * time.Hour)
			w.srv.RevokeSessions()
			require.Equal(t, http.StatusUnauthorized, w.dial(a), n)
			a, err = a.Rejected(t.Context())
			require.NoError(t, err, "death %d", n+1)
		}
		require.NoError(t, c.Close())
	})
}

func TestRejectedHeedsItsContext(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	c := w.client()
	a, err := c.Authorize(t.Context(), w.srv.URL)
	require.NoError(t, err)
	w.srv.RevokeSessions()
	a, err = a.Rejected(t.Context())
	require.NoError(t, err)
	w.srv.RevokeSessions()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = a.Rejected(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUnauthorized, "another session can be had")
}

func TestRejectedCallsNobodyAfterClose(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	c := w.client()
	a, err := c.Authorize(t.Context(), w.srv.URL)
	require.NoError(t, err)
	w.srv.RevokeSessions()
	a, err = a.Rejected(t.Context())
	require.NoError(t, err)
	require.NoError(t, c.Close())
	n := len(w.srv.Requests())
	_, err = a.Rejected(t.Context())
	require.ErrorIs(t, err, ErrClosed)
	assert.Len(t, w.srv.Requests(), n, "a closed client calls nobody")

	fixed, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithCredential(APIKey(w.key.Secret)))
	require.NoError(t, err)
	a, err = fixed.Authorize(t.Context(), w.srv.URL)
	require.NoError(t, err)
	require.NoError(t, fixed.Close())
	_, err = a.Rejected(t.Context())
	require.ErrorIs(t, err, ErrClosed)
}

// A bad hour of the platform, over by now, must not leave its mark on a client
// that only authorizes.
func TestClientsThatOnlyAuthorizeRecover(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"authorize", "transport"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t)
				kill := 0
				platform := w.srv.Transport()
				base := tripFunc(func(r *http.Request) (*http.Response, error) {
					if r.URL.Path == "/api/v1/agents" && kill > 0 {
						kill--
						w.srv.RevokeSessions()
					}
					return platform.RoundTrip(r)
				})
				c := w.client(WithTransport(base))
				try := func() error {
					if how == "transport" {
						_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
						return err
					}
					a, err := c.Authorize(t.Context(), w.srv.URL)
					for err == nil {
						req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, w.srv.URL+"/api/v1/agents", http.NoBody)
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
				for range 2 { // sessions die as fast as they are bought
					kill = 100
					require.Error(t, try())
					kill = 0
					advance(10 * time.Minute)
				}
				// It is over: for hours all is well, with an end of a session now and then.
				for range 20 {
					kill = 1
					require.NoError(t, try())
					advance(2 * time.Hour)
				}
				kill = 2 // once, two in a row
				assert.NoError(t, try())
				require.NoError(t, c.Close())
			})
		})
	}
}
