package session_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestKeyIsSentOnlyToAuthenticate(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	c := w.Client()
	for range 3 {
		require.NoError(t, w.Call(c))
	}
	assert.Equal(t, 1, w.Exchanges())
	for _, r := range w.Server.Requests() {
		if r.Path == "/api/v1/auth/authenticate" {
			assert.Equal(t, w.Key.Secret, r.Header.Get("X-API-Key"))
			assert.Empty(t, r.Header.Get("Authorization"))
			continue
		}
		assert.Empty(t, r.Header.Get("X-API-Key"))
		assert.True(t, strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "))
		assert.NotContains(t, r.Header.Get("Authorization"), w.Key.Secret)
	}
	s := c.Status()
	assert.Equal(t, agrenting.KindSession, s.Kind)
	assert.InDelta(t, (20 * time.Hour).Seconds(), time.Until(s.Expires).Seconds(), 5)
}

func TestSessionsAreRenewedBeforeAnyoneNotices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		c := w.Client()
		began := time.Now()
		for time.Since(began) < 10*time.Minute {
			require.NoError(t, w.Call(c))
			sdktest.Advance(500 * time.Millisecond)
		}
		assert.Zero(t, w.Unauthorized())
		assert.InDelta(t, 12.5, w.Exchanges(), 2)
	})
}

// A client that looks for another key every few seconds still renews the
// session as early as any session of that length, with time to survive an
// outage.
func TestSessionsOfChangingKeysAreRenewedEarly(t *testing.T) {
	t.Parallel()
	for name, keys := range sdktest.KeySources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(20*time.Hour))
				c := w.Client(keys(w)...)
				require.NoError(t, w.Call(c))
				sdktest.Advance(18*time.Hour + 53*time.Minute)
				synctest.Wait()
				require.Equal(t, 1, w.Exchanges())
				assert.InDelta(t, 7, time.Until(c.Status().NextRenewal).Minutes(), 6.5, "reading the key does not renew")
				sdktest.Advance(14 * time.Minute)
				synctest.Wait()
				assert.Equal(t, 2, w.Exchanges(), "the lead is an hour, more or less a tenth")
			})
		})
	}
}

func TestSessionShapesAllServe(t *testing.T) {
	t.Parallel()
	for _, shape := range []agrentingtest.SessionShape{
		agrentingtest.ShapeLive, agrentingtest.ShapeDocs, agrentingtest.ShapeBoth,
		agrentingtest.ShapeBadExpiry, agrentingtest.ShapePastExpiry, agrentingtest.ShapeFlat,
	} {
		t.Run(shape.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionShape(shape), agrentingtest.WithoutRateLimits())
				c := w.Client()
				for range 20 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Minute)
				}
				assert.Equal(t, 1, w.Exchanges(), "the token is kept whatever is said of its expiry")
				w.Server.RevokeSessions()
				require.NoError(t, w.Call(c), "and renewed by a 401")
				assert.Equal(t, 2, w.Exchanges())
			})
		})
	}
}

func TestEarlyRevocationFailsNoRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		c := w.Client()
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(100*time.Millisecond).Always())
		w.Server.RevokeSessions()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				sdktest.Advance(time.Duration(i) * 3 * time.Millisecond)
				assert.NoError(t, w.Call(c))
			})
		}
		wg.Wait()
		assert.Equal(t, 2, w.Exchanges())
		assert.LessOrEqual(t, w.Unauthorized(), 50)
	})
}

func TestLockoutIsTypedAndSilentUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		other := w.Client()
		for range 11 { // another client on this IP
			_, _ = other.Sessions.Authenticate(t.Context())
		}
		before := w.Exchanges()
		c := w.Client()
		err := w.Call(c)
		require.ErrorIs(t, err, agrenting.ErrLockedOut)
		require.ErrorIs(t, err, agrenting.ErrRateLimited)
		l, ok := errors.AsType[*agrenting.LockoutError](err)
		require.True(t, ok)
		assert.InDelta(t, (5 * time.Minute).Seconds(), time.Until(l.RetryAt).Seconds(), 1)
		for time.Now().Before(l.RetryAt.Add(-time.Second)) {
			began := time.Now()
			require.ErrorIs(t, w.Call(c), agrenting.ErrLockedOut)
			require.Zero(t, time.Since(began), "fails at once")
			sdktest.Advance(time.Second)
		}
		assert.Equal(t, before+1, w.Exchanges(), "not one call during the lockout")
		sdktest.Advance(2 * time.Second)
		require.NoError(t, w.Call(c))
	})
}

func TestOtherDocumentedPathIsTriedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"), agrentingtest.WithoutRateLimits(), agrentingtest.WithSessionTTL(time.Minute))
		c := w.Client()
		for range 20 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(30 * time.Second)
		}
		assert.Equal(t, 1, w.Exchanges(), "the unknown path is tried once")
		assert.Greater(t, w.Server.Count("POST /auth/authenticate"), 5)
	})
	w := sdktest.NewSessionWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"))
	c := w.Client()
	for range 3 {
		_, err := c.Sessions.Authenticate(t.Context())
		require.NoError(t, err, "on demand, too")
	}
	assert.Equal(t, 1, w.Exchanges(), "the unknown path is tried once")

	w = sdktest.NewSessionWorld(t)
	c = w.Client()
	w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.HandlerError(http.StatusNotFound, "ROUTE_NOT_FOUND"))
	w.Server.Fault("POST /auth/authenticate", agrentingtest.Status(http.StatusServiceUnavailable, ""))
	_, err := c.Sessions.Authenticate(t.Context())
	require.Error(t, err, "a gateway knows neither")
	_, err = c.Sessions.Authenticate(t.Context())
	require.NoError(t, err, "and does the next day")
	w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.HandlerError(http.StatusNotFound, "ROUTE_NOT_FOUND"))
	w.Server.Fault("POST /auth/authenticate", agrentingtest.Status(http.StatusUnauthorized, ""))
	_, err = c.Sessions.Authenticate(t.Context())
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	_, err = c.Sessions.Authenticate(t.Context())
	require.NoError(t, err, "what was remembered is no longer so")

	w = sdktest.NewSessionWorld(t, agrentingtest.WithAuthPath("/elsewhere"))
	c = w.Client(agrenting.WithRoutes(agrenting.Routes{Authenticate: "/elsewhere"}))
	require.NoError(t, w.Call(c))
}

// While it is deployed, a platform may not know its own path for a moment.
func TestOtherDocumentedPath_servedByAnotherParty_isNotUsedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
	}{
		"JSON without a code": {http.StatusNotFound, `{"errors":{"detail":"Not Found"}}`},
		"page":                {http.StatusNotFound, "<html>"},
		"redirect":            {http.StatusFound, ""},
		"refused":             {http.StatusForbidden, `{"error":"invalid CSRF token"}`},
		"page of a success":   {http.StatusOK, "<html>"},
		"page of a failure":   {http.StatusServiceUnavailable, "<html>"},
		"page of a 401":       {http.StatusUnauthorized, "<html>"},
	} {
		for was, remembered := range map[string]bool{"": false, ", remembered": true} {
			t.Run(name+was, func(t *testing.T) {
				t.Parallel()
				w := sdktest.NewSessionWorld(t)
				calls := 0
				client := w.Client(agrenting.WithTransport(sdktest.Between(w.Server.Transport(), func(r *http.Request) *http.Response {
					if r.URL.Path != "/auth/authenticate" {
						return nil
					}
					calls++
					if remembered && calls == 1 {
						return sdktest.Reply(http.StatusServiceUnavailable, `{"errors":[{"code":"AGENT_UNAVAILABLE"}]}`)
					}
					return sdktest.Reply(c.status, c.body, "Location", "/maintenance")
				})))
				w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.HandlerError(http.StatusNotFound, "ROUTE_NOT_FOUND"))
				_, err := client.Sessions.Authenticate(t.Context())
				require.Error(t, err)
				for range 3 {
					_, err = client.Sessions.Authenticate(t.Context())
					require.NoError(t, err)
				}
				want := 1
				if remembered {
					want = 2
				}
				assert.Equal(t, want, calls)
			})
		}
	}
}

func TestExchangeFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	foreign := sdktest.NewSessionWorld(t)
	w := sdktest.NewSessionWorld(t)
	w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Redirect(http.StatusTemporaryRedirect, foreign.Server.URL+"/api/v1/auth/authenticate").Always())
	err := w.Call(w.Client())
	require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
	require.ErrorContains(t, err, "base URL")
	assert.Empty(t, foreign.Server.Requests())
	assert.NotContains(t, err.Error(), w.Key.Secret)
}

// For example, a gateway redirects to a page about maintenance.
func TestRefusalByGateway_isWaitedOutOnceExchangesHaveWorked(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]agrentingtest.Fault{
		"redirect":      agrentingtest.Redirect(http.StatusFound, "/maintenance"),
		"forbidden":     agrentingtest.Status(http.StatusForbidden, "BLOCKED"),
		"unknown route": agrentingtest.HandlerError(http.StatusNotFound, "ROUTE_NOT_FOUND"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Second), agrentingtest.WithoutRateLimits())
				store := agrenting.MemoryStore()
				policy := agrenting.WithSession(agrenting.SessionPolicy{Window: -1, Store: store})
				first, adopting := w.Client(policy), w.Client(policy)
				require.NoError(t, w.Call(first))
				require.NoError(t, w.Call(adopting))
				require.Equal(t, 1, w.Exchanges())
				sdktest.Advance(11 * time.Second)
				w.Server.Fault(sdktest.RouteAuthenticate, fault.Always())
				time.AfterFunc(2*time.Second, w.Server.ClearFaults)
				began := time.Now()
				var wg sync.WaitGroup
				for n := range 20 {
					c := first
					if n%2 == 1 {
						c = adopting
					}
					wg.Go(func() { assert.NoError(t, w.Call(c)) })
				}
				wg.Wait()
				assert.Less(t, time.Since(began), 6*time.Second)

				w.Server.Fault(sdktest.RouteAuthenticate, fault.Always())
				began = time.Now()
				require.Error(t, w.Call(w.Client()))
				assert.Zero(t, time.Since(began), "no exchange of this client has worked")
			})
		})
	}
}

func TestExchangeResponsesAreBoundedAndNotPrinted(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	for name, body := range map[string]string{
		"too large":    `{"data":{"session_token":"` + strings.Repeat("a", 128<<10) + `"}}`,
		"no token":     `{"data":{"sessiontoken":"very-secret-token-value"}}`,
		"not JSON":     `very-secret-token-value`,
		"token breaks": `{"data":{"token":"very-secret-token-value\u0001"}}`,
		"errors":       `{"data":{"token":"very-secret-token-value"},"errors":[{"code":"X","message":"` + w.Key.Secret + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
				return sdktest.Reply(http.StatusOK, body), nil
			})
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithTransport(base), agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithSession())
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "very-secret")
			assert.NotContains(t, err.Error(), w.Key.Secret)
		})
	}
}

func TestRefusedKeyIsReplacedByItsSource(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(w.Key.Secret), 0o600))
	c := w.Client(agrenting.WithCredentialSource(agrenting.FileSource(path)))
	require.NoError(t, w.Call(c))
	next := w.Server.NewKey(w.Agent.ID)
	w.Server.RevokeKey(w.Key.ID)
	w.Server.RevokeSessions()
	require.NoError(t, os.WriteFile(path, []byte(next.Secret+"\n"), 0o600))
	require.NoError(t, w.Call(c))
}

func TestReplacedKeyFileMeansANewSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(w.Key.Secret), 0o600))
		c := w.Client(agrenting.WithCredentialSource(agrenting.FileSource(path)))
		for range 10 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(15 * time.Second)
		}
		require.Equal(t, 1, w.Exchanges(), "reading the file does not cause an exchange")
		assert.Zero(t, c.Status().ClockSkew)
		next := w.Server.NewKey(w.Agent.ID)
		require.NoError(t, os.WriteFile(path, []byte(next.Secret), 0o600))
		sdktest.Advance(15 * time.Second)
		require.NoError(t, w.Call(c))
		synctest.Wait()
		require.Equal(t, 2, w.Exchanges())
		reqs := w.Server.Requests()
		var keys []string
		for _, r := range reqs {
			if r.CredentialKind == "api_key" {
				keys = append(keys, r.CredentialID)
			}
		}
		assert.Equal(t, []string{w.Key.ID, next.ID}, keys)
	})
}

func TestExchangeOutageWithValidSessionFailsNoRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		c := w.Client()
		require.NoError(t, w.Call(c))
		sdktest.Advance(45 * time.Second)
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Always())
		began := time.Now()
		for time.Since(began) < 10*time.Second {
			require.NoError(t, w.Call(c))
			sdktest.Advance(50 * time.Millisecond)
		}
		attempts := w.Exchanges() - 1
		assert.LessOrEqual(t, attempts, 6, "one attempt per backoff step")
		w.Server.ClearFaults()
		sdktest.Advance(8 * time.Second)
		require.NoError(t, w.Call(c))
		sdktest.Advance(time.Minute - 10*time.Second)
		assert.Zero(t, w.Unauthorized())
	})
}

func TestExchangeOutageAcrossExpiryRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Second), agrentingtest.WithoutRateLimits())
		c := w.Client(failingAtOnce)
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Always())
		sdktest.Advance(11 * time.Second)
		began := time.Now()
		var last *agrenting.RenewalError
		for range 100 {
			err := w.Call(c)
			require.Error(t, err)
			var ok bool
			last, ok = errors.AsType[*agrenting.RenewalError](err)
			require.True(t, ok, "%v", err)
			require.ErrorIs(t, err, agrenting.ErrServer)
		}
		assert.Zero(t, time.Since(began), "no request waits")
		assert.Equal(t, agrenting.StateFailing, c.Status().State)
		w.Server.ClearFaults()
		sdktest.Advance(time.Until(last.RetryAt) + 10*time.Millisecond)
		require.NoError(t, w.Call(c))
	})
}

func TestRequestsWaitDuringExchangeOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Second), agrentingtest.WithoutRateLimits())
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Window: -1}))
		require.NoError(t, w.Call(c))
		sdktest.Advance(11 * time.Second)
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
		time.AfterFunc(2*time.Second, w.Server.ClearFaults)
		began := time.Now()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { assert.NoError(t, w.Call(c)) })
		}
		wg.Wait()
		assert.Less(t, time.Since(began), 5*time.Second)
		assert.LessOrEqual(t, w.Exchanges(), 8, "one attempt per step")
		assert.EqualValues(t, 2, w.Server.Stats().SessionsIssued)
	})
}

func TestShortDeadlineDoesNotCancelExchange(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]agrenting.SessionPolicy{"ahead": {}, "not ahead": {Window: -1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(2*time.Second), agrentingtest.WithoutRateLimits())
				w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(100*time.Millisecond).Always())
				c := w.Client(agrenting.WithSession(policy))
				require.NoError(t, w.Call(c))
				failed := 0
				began := time.Now()
				for time.Since(began) < 20*time.Second {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					sent := time.Now()
					if _, err := c.Do(ctx, http.MethodGet, "/api/v1/agents", nil, nil); err != nil {
						require.ErrorIs(t, err, context.DeadlineExceeded)
						failed++
					}
					require.LessOrEqual(t, time.Since(sent), 50*time.Millisecond)
					cancel()
					sdktest.Advance(10 * time.Millisecond)
				}
				if policy.Window >= 0 {
					assert.Zero(t, failed)
				} else {
					assert.Positive(t, failed)
					assert.LessOrEqual(t, failed, 2*w.Exchanges(), "the exchange continued without the canceled callers")
				}
			})
		})
	}
}

func TestClockSkewDoesNotCostASession(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{-time.Hour, time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithClockSkew(skew), agrentingtest.WithSessionTTL(10*time.Minute), agrentingtest.WithoutRateLimits())
				c := w.Client()
				for range 100 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Minute)
				}
				assert.InDelta(t, 12.5, w.Exchanges(), 2)
				assert.Zero(t, w.Unauthorized())
				assert.InDelta(t, skew.Seconds(), c.Status().ClockSkew.Seconds(), 2)
			})
		})
	}
}

func TestLogoutOnCloseEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, want := range []bool{true, false} {
		w := sdktest.NewSessionWorld(t)
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: want}))
		require.NoError(t, w.Call(c))
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.ErrorIs(t, w.Call(c), agrenting.ErrClosed)

		direct, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()), agrenting.WithCredential(cred))
		require.NoError(t, err)
		if want {
			require.ErrorIs(t, w.Call(direct), agrenting.ErrUnauthorized)
		} else {
			require.NoError(t, w.Call(direct))
		}
	}
}

func TestSessionTokenCannotBeExchanged(t *testing.T) {
	t.Parallel()
	_, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.SessionToken("token-0123456789", time.Time{})), agrenting.WithSession())
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	assert.ErrorContains(t, err, "API key")
}

func TestSessionOfSandboxKeyIsAccepted(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	agent := w.Server.NewAgent(nil, agrentingtest.AgentConfig{Name: "s", Sandbox: true})
	w.Key = w.Server.NewKey(agent.ID)
	c := w.Client(agrenting.WithEnvironment(agrenting.Sandbox))
	require.NoError(t, w.Call(c))
	assert.Equal(t, agrenting.Sandbox, c.Status().Environment)

	_, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("production-key-0123456789")), agrenting.WithSession(), agrenting.WithEnvironment(agrenting.Sandbox))
	require.ErrorIs(t, err, agrenting.ErrEnvironmentMismatch)
}

func TestSessionEventsTellTheirReasonsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		var mu sync.Mutex
		var seen []string
		c := w.Client(agrenting.WithObserver(func(e agrenting.Event) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, string(e.Type)+" "+e.Reason)
		}))
		require.NoError(t, w.Call(c))
		sdktest.Advance(55 * time.Second)
		w.Server.RevokeSessions()
		require.NoError(t, w.Call(c))
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []string{"renewed first", "renewed early", string(agrenting.EventRejected) + " rejected", "renewed rejected"}, seen)
	})
}

func TestOnlyRefusedKeyIsSentOnce(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(w.Key.Secret), 0o600))
	w.Server.RevokeKey(w.Key.ID)
	for i, src := range []agrenting.CredentialSource{agrenting.Static(agrenting.APIKey(w.Key.Secret)), agrenting.FileSource(path)} {
		require.ErrorIs(t, w.Call(w.Client(agrenting.WithCredentialSource(src))), agrenting.ErrUnauthorized)
		assert.Equal(t, i+1, w.Exchanges(), "ten calls a minute lock this IP out")
	}
}

func TestSourceCredentialIsCheckedBeforeExchange(t *testing.T) {
	t.Parallel()
	errSource := errors.New("the vault is sealed")
	sandbox, session := agrenting.APIKey("sk_sandbox_0123456789abcdef"), agrenting.SessionToken("token-0123456789", time.Time{})
	for name, c := range map[string]struct {
		cred agrenting.Credential
		err  error
		want error
	}{
		"session token":   {cred: session, want: agrenting.ErrInvalidCredential},
		"sandbox key":     {cred: sandbox, want: agrenting.ErrEnvironmentMismatch},
		"nothing":         {want: agrenting.ErrNoCredential},
		"the source's no": {err: errSource, want: errSource},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewSessionWorld(t)
			src := &sdktest.Source{Cred: c.cred, Err: c.err}
			require.ErrorIs(t, w.Call(w.Client(agrenting.WithCredentialSource(src), agrenting.WithEnvironment(agrenting.Production))), c.want)
			assert.Empty(t, w.Server.Requests(), "nothing was sent")

			w.Server.RevokeKey(w.Key.ID)
			for _, refused := range []agrenting.CredentialSource{
				&sdktest.Refreshing{Source: sdktest.Source{Cred: agrenting.APIKey(w.Key.Secret)}, Next: c.cred, NextErr: c.err},
				&turning{first: agrenting.APIKey(w.Key.Secret), then: src},
			} {
				w.Server.ResetLog()
				err := w.Call(w.Client(agrenting.WithCredentialSource(refused), agrenting.WithEnvironment(agrenting.Production)))
				require.ErrorIs(t, err, c.want)
				require.ErrorIs(t, err, agrenting.ErrUnauthorized, "why another key was looked for")
				assert.Equal(t, 1, w.Exchanges(), "the other key was not sent")
			}
		})
	}
}

// turning yields first once, and then what then yields.
type turning struct {
	once  sync.Once
	first agrenting.Credential
	then  agrenting.CredentialSource
}

func (s *turning) Credential(ctx context.Context) (c agrenting.Credential, err error) {
	c, err = s.then.Credential(ctx)
	s.once.Do(func() { c, err = s.first, nil })
	return c, err
}

func TestTheExchangeHasTheTimeoutOfThePolicy(t *testing.T) {
	t.Parallel()
	for want, policy := range map[time.Duration]agrenting.SessionPolicy{2 * time.Second: {Timeout: 2 * time.Second}, 30 * time.Second: {}} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewSessionWorld(t)
			w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(time.Minute).Always())
			c := w.Client(agrenting.WithSession(policy), agrenting.WithTimeout(0), failingAtOnce)
			began := time.Now()
			require.ErrorIs(t, w.Call(c), context.DeadlineExceeded)
			assert.Equal(t, want, time.Since(began))
		})
	}
}

func TestExchangeRespectsRetryAfterUpToLimit(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{"120": 2 * time.Minute, "86400": 30 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewSessionWorld(t)
			w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, header).Times(1))
			c := w.Client()
			err := w.Call(c)
			f, ok := errors.AsType[*agrenting.RenewalError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, want, time.Until(f.RetryAt).Round(time.Second))
			assert.Equal(t, 1, f.Failures)
			sdktest.Advance(want - 2*time.Second)
			require.Error(t, w.Call(c))
			assert.Equal(t, 1, w.Exchanges())
			sdktest.Advance(3 * time.Second)
			require.NoError(t, w.Call(c))
		})
	}
}

func TestLockoutAfterSessionIsTyped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Window: -1}))
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusTooManyRequests, "300").Always())
		sdktest.Advance(time.Minute)
		err := w.Call(c)
		require.ErrorIs(t, err, agrenting.ErrLockedOut)
		l, ok := errors.AsType[*agrenting.LockoutError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, 5*time.Minute, time.Until(l.RetryAt).Round(time.Second))
	})
}

func TestResponseOfOtherDocumentedPathCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const route = "POST /auth/authenticate"
		w := sdktest.NewSessionWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"), agrentingtest.WithoutRateLimits())
		w.Server.Fault(route, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Times(1))
		c := w.Client(failingAtOnce)
		require.ErrorIs(t, w.Call(c), agrenting.ErrServer)
		sdktest.Advance(2 * time.Second)
		require.NoError(t, w.Call(c))
		assert.Equal(t, 1, w.Exchanges(), "the path that is unknown is remembered")
		assert.Equal(t, 2, w.Server.Count(route))
	})
	w := sdktest.NewSessionWorld(t)
	require.NoError(t, w.Call(w.Client(agrenting.WithRoutes(agrenting.Routes{Authenticate: "/auth/authenticate"}))), "either way round")

	w = sdktest.NewSessionWorld(t, agrentingtest.WithAuthPath("/elsewhere"))
	require.ErrorIs(t, w.Call(w.Client()), agrenting.ErrRouteNotFound)
}

func TestLogoutOnCloseSparesTheSessionsOfOthers(t *testing.T) {
	t.Parallel()
	w := sdktest.NewSessionWorld(t)
	policy := agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: true})
	c := w.Client(policy, agrenting.WithSession(agrenting.SessionPolicy{Store: sdktest.NewFailingStore()}))
	require.NoError(t, w.Call(c))
	require.NoError(t, c.Close())
	assert.Zero(t, w.Server.Count("DELETE /api/v1/auth/logout"))

	require.NoError(t, w.Client(policy).Close())
	assert.Zero(t, w.Server.Count("DELETE /api/v1/auth/logout"), "there was no session to end")
}
