package agrenting

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

	"github.com/agrenting/agrenting-go/agrentingtest"
)

const routeAuthenticate = "POST /api/v1/auth/authenticate"

// advance waits in virtual time: its callers are in a bubble. It does not wait
// for others to settle; synctest.Wait does.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where these tests wait

// sessionWorld is a platform with one agent, and clients that use sessions.
type sessionWorld struct {
	t     *testing.T
	srv   *agrentingtest.Server
	agent *agrentingtest.Agent
	key   agrentingtest.Key
}

// newSessionWorld lives in memory, so that it works inside a bubble.
func newSessionWorld(t *testing.T, opts ...agrentingtest.Option) *sessionWorld {
	t.Helper()
	opts = append([]agrentingtest.Option{agrentingtest.InMemory()}, opts...)
	w := &sessionWorld{t: t, srv: agrentingtest.NewServer(opts...)}
	t.Cleanup(w.srv.Close)
	w.agent = w.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "worker"})
	w.key = w.srv.NewKey(w.agent.ID)
	return w
}

func (w *sessionWorld) client(opts ...Option) *Client {
	w.t.Helper()
	c, err := New(append([]Option{
		WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()),
		WithCredential(APIKey(w.key.Secret)), WithSession(),
	}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, c.Close()) })
	return c
}

func (w *sessionWorld) call(c *Client) error {
	_, err := c.Do(w.t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	return err
}

// renewSession has the client obtain another session.
func renewSession(ctx context.Context, c *Client) error {
	_, err := c.core.creds.engine.Reject(ctx, c.Status().Generation)
	return err
}

// bought counts the calls of the authenticate endpoint.
func (w *sessionWorld) bought() int { return w.srv.Count(routeAuthenticate) }

// badAnswers counts the requests that the platform answered with 401.
func (w *sessionWorld) unauthorized() (n int) {
	for _, r := range w.srv.Requests() {
		if r.Status == http.StatusUnauthorized {
			n++
		}
	}
	return n
}

func TestSessionsAreUsedAndTheKeyGoesToTheExchangeOnly(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	c := w.client()
	for range 3 {
		require.NoError(t, w.call(c))
	}
	assert.Equal(t, 1, w.bought())
	for _, r := range w.srv.Requests() {
		if r.Path == "/api/v1/auth/authenticate" {
			assert.Equal(t, w.key.Secret, r.Header.Get("X-API-Key"))
			assert.Empty(t, r.Header.Get("Authorization"))
			continue
		}
		assert.Empty(t, r.Header.Get("X-API-Key"))
		assert.True(t, strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "))
		assert.NotContains(t, r.Header.Get("Authorization"), w.key.Secret)
	}
	s := c.Status()
	assert.Equal(t, KindSession, s.Kind)
	assert.InDelta(t, (20 * time.Hour).Seconds(), time.Until(s.Expires).Seconds(), 5)
}

func TestSessionsAreRenewedBeforeAnyoneNotices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		c := w.client()
		began := time.Now()
		for time.Since(began) < 10*time.Minute {
			require.NoError(t, w.call(c))
			advance(500 * time.Millisecond)
		}
		assert.Zero(t, w.unauthorized())
		assert.InDelta(t, 12.5, w.bought(), 2)
	})
}

// kindsOfKeys are the ways to come by the key that buys sessions.
var kindsOfKeys = map[string]func(w *sessionWorld) []Option{
	"fixed key": func(*sessionWorld) []Option { return nil },
	"key file": func(w *sessionWorld) []Option {
		path := filepath.Join(w.t.TempDir(), "key")
		require.NoError(w.t, os.WriteFile(path, []byte(w.key.Secret), 0o600))
		return []Option{WithCredentialSource(FileSource(path))}
	},
	"store": func(w *sessionWorld) []Option {
		return []Option{
			WithStore(storeWith(APIKey(w.key.Secret))),
			WithRotation(RotationPolicy{AgentID: w.agent.ID, Every: -1}),
		}
	},
	"store that is not watched": func(w *sessionWorld) []Option {
		return []Option{WithStore(&breakableStore{Store: storeWith(APIKey(w.key.Secret))})}
	},
}

// Whoever looks for another key every few seconds still renews the session when
// a session of its length is to be renewed, with time to survive an outage.
func TestSessionsOfKeysThatMayChangeAreRenewedAsEarlyAsOthers(t *testing.T) {
	t.Parallel()
	for name, keys := range kindsOfKeys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t, agrentingtest.WithSessionTTL(20*time.Hour))
				c := w.client(keys(w)...)
				require.NoError(t, w.call(c))
				advance(18*time.Hour + 53*time.Minute)
				synctest.Wait()
				require.Equal(t, 1, w.bought())
				assert.InDelta(t, 7, time.Until(c.Status().NextRenewal).Minutes(), 6.5, "a look at the key is no renewal")
				advance(14 * time.Minute)
				synctest.Wait()
				assert.Equal(t, 2, w.bought(), "the lead is an hour, more or less a tenth")
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
				w := newSessionWorld(t, agrentingtest.WithSessionShape(shape), agrentingtest.WithoutRateLimits())
				c := w.client()
				for range 20 {
					require.NoError(t, w.call(c))
					advance(time.Minute)
				}
				assert.Equal(t, 1, w.bought(), "the token is kept whatever is said of its expiry")
				w.srv.RevokeSessions()
				require.NoError(t, w.call(c), "and renewed by a 401")
				assert.Equal(t, 2, w.bought())
			})
		})
	}
}

func TestEarlyRevocationByThePlatformFailsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		c := w.client()
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.Delay(100*time.Millisecond).Always())
		w.srv.RevokeSessions()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				advance(time.Duration(i) * 3 * time.Millisecond)
				assert.NoError(t, w.call(c))
			})
		}
		wg.Wait()
		assert.Equal(t, 2, w.bought())
		assert.LessOrEqual(t, w.unauthorized(), 50)
	})
}

func TestLockoutIsTypedAndSilentUntilItEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		key := APIKey(w.key.Secret)
		other := w.client()
		for range 11 { // somebody else on this IP
			_, _ = other.core.endpoint.Exchange(t.Context(), key.c)
		}
		before := w.bought()
		c := w.client()
		err := w.call(c)
		require.ErrorIs(t, err, ErrLockedOut)
		require.ErrorIs(t, err, ErrRateLimited)
		l, ok := errors.AsType[*LockoutError](err)
		require.True(t, ok)
		assert.InDelta(t, (5 * time.Minute).Seconds(), time.Until(l.RetryAt).Seconds(), 1)
		for time.Now().Before(l.RetryAt.Add(-time.Second)) {
			began := time.Now()
			require.ErrorIs(t, w.call(c), ErrLockedOut)
			require.Zero(t, time.Since(began), "fails at once")
			advance(time.Second)
		}
		assert.Equal(t, before+1, w.bought(), "not one call during the lockout")
		advance(2 * time.Second)
		require.NoError(t, w.call(c))
	})
}

func TestTheOtherDocumentedPathIsTriedOnceAndRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"), agrentingtest.WithoutRateLimits(), agrentingtest.WithSessionTTL(time.Minute))
		c := w.client()
		for range 20 {
			require.NoError(t, w.call(c))
			advance(30 * time.Second)
		}
		assert.Equal(t, 1, w.bought(), "the unknown path is tried once")
		assert.Greater(t, w.srv.Count("POST /auth/authenticate"), 5)
	})
	w := newSessionWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"))
	c := w.client()
	for range 3 {
		_, err := c.Sessions.Authenticate(t.Context())
		require.NoError(t, err, "by hand, too")
	}
	assert.Equal(t, 1, w.bought(), "the unknown path is tried once")

	w = newSessionWorld(t)
	c = w.client()
	w.srv.Fault(routeAuthenticate, agrentingtest.HandlerError(http.StatusNotFound, "ROUTE_NOT_FOUND"))
	w.srv.Fault("POST /auth/authenticate", agrentingtest.Status(http.StatusServiceUnavailable, ""))
	_, err := c.Sessions.Authenticate(t.Context())
	require.Error(t, err, "a gateway knows neither")
	_, err = c.Sessions.Authenticate(t.Context())
	require.NoError(t, err, "and does the next day")
	w.srv.Fault(routeAuthenticate, agrentingtest.HandlerError(http.StatusNotFound, "ROUTE_NOT_FOUND"))
	w.srv.Fault("POST /auth/authenticate", agrentingtest.Status(http.StatusUnauthorized, ""))
	_, err = c.Sessions.Authenticate(t.Context())
	require.ErrorIs(t, err, ErrUnauthorized)
	_, err = c.Sessions.Authenticate(t.Context())
	require.NoError(t, err, "what was remembered is no longer so")

	w = newSessionWorld(t, agrentingtest.WithAuthPath("/elsewhere"))
	c = w.client(WithRoutes(Routes{Authenticate: "/elsewhere"}))
	require.NoError(t, w.call(c))
}

func TestExchangeFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	foreign := newSessionWorld(t)
	w := newSessionWorld(t)
	w.srv.Fault(routeAuthenticate, agrentingtest.Redirect(http.StatusTemporaryRedirect, foreign.srv.URL+"/api/v1/auth/authenticate").Always())
	err := w.call(w.client())
	require.ErrorIs(t, err, ErrForeignOrigin)
	require.ErrorContains(t, err, "base URL")
	assert.Empty(t, foreign.srv.Requests())
	assert.NotContains(t, err.Error(), w.key.Secret)
}

func TestExchangeAnswersAreBoundedAndNeverPrinted(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	for name, body := range map[string]string{
		"too large":    `{"data":{"session_token":"` + strings.Repeat("a", 128<<10) + `"}}`,
		"no token":     `{"data":{"sessiontoken":"very-secret-token-value"}}`,
		"not JSON":     `very-secret-token-value`,
		"token breaks": `{"data":{"token":"very-secret-token-value\u0001"}}`,
		"errors":       `{"data":{"token":"very-secret-token-value"},"errors":[{"code":"X","message":"` + w.key.Secret + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := tripFunc(func(*http.Request) (*http.Response, error) {
				return reply(http.StatusOK, body), nil
			})
			c, err := New(WithoutEnvironment(), WithTransport(base), WithCredential(APIKey(w.key.Secret)), WithSession())
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "very-secret")
			assert.NotContains(t, err.Error(), w.key.Secret)
		})
	}
}

func TestRefusedKeyIsReplacedByItsSource(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(w.key.Secret), 0o600))
	c := w.client(WithCredentialSource(FileSource(path)))
	require.NoError(t, w.call(c))
	next := w.srv.NewKey(w.agent.ID)
	w.srv.RevokeKey(w.key.ID)
	w.srv.RevokeSessions()
	require.NoError(t, os.WriteFile(path, []byte(next.Secret+"\n"), 0o600))
	require.NoError(t, w.call(c))
}

func TestReplacedKeyFileMeansANewSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(w.key.Secret), 0o600))
		c := w.client(WithCredentialSource(FileSource(path)))
		for range 10 {
			require.NoError(t, w.call(c))
			advance(15 * time.Second)
		}
		require.Equal(t, 1, w.bought(), "a look at the file is no exchange")
		assert.Zero(t, c.Status().ClockSkew)
		next := w.srv.NewKey(w.agent.ID)
		require.NoError(t, os.WriteFile(path, []byte(next.Secret), 0o600))
		advance(15 * time.Second)
		require.NoError(t, w.call(c))
		synctest.Wait()
		require.Equal(t, 2, w.bought())
		reqs := w.srv.Requests()
		var keys []string
		for _, r := range reqs {
			if r.CredentialKind == "api_key" {
				keys = append(keys, r.CredentialID)
			}
		}
		assert.Equal(t, []string{w.key.ID, next.ID}, keys)
	})
}

func TestExchangeDownWhileTheSessionIsGoodFailsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		c := w.client()
		require.NoError(t, w.call(c))
		advance(45 * time.Second)
		w.srv.Fault(routeAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Always())
		began := time.Now()
		for time.Since(began) < 10*time.Second {
			require.NoError(t, w.call(c))
			advance(50 * time.Millisecond)
		}
		attempts := w.bought() - 1
		assert.LessOrEqual(t, attempts, 6, "one attempt per backoff step")
		w.srv.ClearFaults()
		advance(8 * time.Second)
		require.NoError(t, w.call(c))
		advance(time.Minute - 10*time.Second)
		assert.Zero(t, w.unauthorized())
	})
}

func TestExchangeDownAcrossTheExpiryFailsFastTypedAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Second), agrentingtest.WithoutRateLimits())
		c := w.client()
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Always())
		advance(11 * time.Second)
		began := time.Now()
		var last *RenewalError
		for range 100 {
			err := w.call(c)
			require.Error(t, err)
			var ok bool
			last, ok = errors.AsType[*RenewalError](err)
			require.True(t, ok, "%v", err)
			require.ErrorIs(t, err, ErrServer)
		}
		assert.Zero(t, time.Since(began), "nobody is put to sleep, nobody queues")
		assert.Equal(t, StateFailing, c.Status().State)
		w.srv.ClearFaults()
		advance(time.Until(last.RetryAt) + 10*time.Millisecond)
		require.NoError(t, w.call(c))
	})
}

func TestDeadlineShorterThanTheExchangeIsKeptAndTheExchangeCompletes(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]SessionPolicy{"ahead": {}, "not ahead": {Window: -1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t, agrentingtest.WithSessionTTL(2*time.Second), agrentingtest.WithoutRateLimits())
				w.srv.Fault(routeAuthenticate, agrentingtest.Delay(100*time.Millisecond).Always())
				c := w.client(WithSession(policy))
				require.NoError(t, w.call(c))
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
					advance(10 * time.Millisecond)
				}
				if policy.Window >= 0 {
					assert.Zero(t, failed)
				} else {
					assert.Positive(t, failed)
					assert.LessOrEqual(t, failed, 2*w.bought(), "the exchange went on without those that left")
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
				w := newSessionWorld(t, agrentingtest.WithClockSkew(skew), agrentingtest.WithSessionTTL(10*time.Minute), agrentingtest.WithoutRateLimits())
				c := w.client()
				for range 100 {
					require.NoError(t, w.call(c))
					advance(time.Minute)
				}
				assert.InDelta(t, 12.5, w.bought(), 2)
				assert.Zero(t, w.unauthorized())
				assert.InDelta(t, skew.Seconds(), c.Status().ClockSkew.Seconds(), 2)
			})
		})
	}
}

func TestLogoutOnCloseEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, want := range []bool{true, false} {
		w := newSessionWorld(t)
		c := w.client(WithSession(SessionPolicy{LogoutOnClose: want}))
		require.NoError(t, w.call(c))
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.ErrorIs(t, w.call(c), ErrClosed)

		direct, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithCredential(cred))
		require.NoError(t, err)
		if want {
			require.ErrorIs(t, w.call(direct), ErrUnauthorized)
		} else {
			require.NoError(t, w.call(direct))
		}
	}
}

func TestSessionTokenCannotBeExchanged(t *testing.T) {
	t.Parallel()
	_, err := New(WithoutEnvironment(), WithCredential(SessionToken("token-0123456789", time.Time{})), WithSession())
	require.ErrorIs(t, err, ErrInvalidCredential)
	assert.ErrorContains(t, err, "API key")
}

func TestSessionOfASandboxKeyIsLetIntoTheSandbox(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	agent := w.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "s", Sandbox: true})
	w.key = w.srv.NewKey(agent.ID)
	c := w.client(WithEnvironment(Sandbox))
	require.NoError(t, w.call(c))
	assert.Equal(t, Sandbox, c.Status().Environment)

	_, err := New(WithoutEnvironment(), WithCredential(APIKey("production-key-0123456789")), WithSession(), WithEnvironment(Sandbox))
	require.ErrorIs(t, err, ErrEnvironmentMismatch)
}

func TestSessionEventsTellTheirReasonsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		var mu sync.Mutex
		var seen []string
		c := w.client(WithObserver(func(e Event) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, string(e.Type)+" "+e.Reason)
		}))
		require.NoError(t, w.call(c))
		advance(55 * time.Second)
		w.srv.RevokeSessions()
		require.NoError(t, w.call(c))
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		assert.Equal(t, []string{"renewed first", "renewed early", string(EventRejected) + " rejected", "renewed rejected"}, seen)
	})
}

func TestAKeyThatIsRefusedIsSentOnceWhereThereIsNoOther(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	path := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(path, []byte(w.key.Secret), 0o600))
	w.srv.RevokeKey(w.key.ID)
	for i, src := range []CredentialSource{Static(APIKey(w.key.Secret)), FileSource(path)} {
		require.ErrorIs(t, w.call(w.client(WithCredentialSource(src))), ErrUnauthorized)
		assert.Equal(t, i+1, w.bought(), "ten calls a minute lock this IP out")
	}
}

// refreshing is a source that answers after a rejection what it is told to.
type refreshing struct {
	mint
	mu       sync.Mutex
	next     Credential
	nextErr  error
	rejected []Credential
}

func (r *refreshing) Refresh(_ context.Context, rejected Credential) (Credential, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rejected = append(r.rejected, rejected)
	return r.next, r.nextErr
}

func TestWhateverASourceYieldsIsCheckedBeforeItIsExchanged(t *testing.T) {
	t.Parallel()
	errSource := errors.New("the vault is sealed")
	sandbox, session := APIKey("sk_sandbox_0123456789abcdef"), SessionToken("token-0123456789", time.Time{})
	for name, c := range map[string]struct {
		cred Credential
		err  error
		want error
	}{
		"session token":   {cred: session, want: ErrInvalidCredential},
		"sandbox key":     {cred: sandbox, want: ErrEnvironmentMismatch},
		"nothing":         {want: ErrNoCredential},
		"the source's no": {err: errSource, want: errSource},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newSessionWorld(t)
			src := &mint{cred: c.cred, err: c.err}
			require.ErrorIs(t, w.call(w.client(WithCredentialSource(src), WithEnvironment(Production))), c.want)
			assert.Empty(t, w.srv.Requests(), "nothing was sent")

			w.srv.RevokeKey(w.key.ID)
			for _, refused := range []CredentialSource{
				&refreshing{mint: mint{cred: APIKey(w.key.Secret)}, next: c.cred, nextErr: c.err},
				&turning{first: APIKey(w.key.Secret), then: src},
			} {
				w.srv.ResetLog()
				err := w.call(w.client(WithCredentialSource(refused), WithEnvironment(Production)))
				require.ErrorIs(t, err, c.want)
				require.ErrorIs(t, err, ErrUnauthorized, "why another key was looked for")
				assert.Equal(t, 1, w.bought(), "the other key was not sent")
			}
		})
	}
}

// turning yields first once, and then what then yields.
type turning struct {
	once  sync.Once
	first Credential
	then  CredentialSource
}

func (s *turning) Credential(ctx context.Context) (c Credential, err error) {
	c, err = s.then.Credential(ctx)
	s.once.Do(func() { c, err = s.first, nil })
	return c, err
}

func TestTheExchangeHasTheTimeoutOfThePolicy(t *testing.T) {
	t.Parallel()
	for want, policy := range map[time.Duration]SessionPolicy{2 * time.Second: {Timeout: 2 * time.Second}, 30 * time.Second: {}} {
		synctest.Test(t, func(t *testing.T) {
			w := newSessionWorld(t)
			w.srv.Fault(routeAuthenticate, agrentingtest.Delay(time.Minute).Always())
			c := w.client(WithSession(policy), WithTimeout(0))
			began := time.Now()
			require.ErrorIs(t, w.call(c), context.DeadlineExceeded)
			assert.Equal(t, want, time.Since(began))
		})
	}
}

func TestTheExchangeHeedsRetryAfterWithinReason(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{"120": 2 * time.Minute, "86400": 30 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newSessionWorld(t)
			w.srv.Fault(routeAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, header).Times(1))
			c := w.client()
			err := w.call(c)
			f, ok := errors.AsType[*RenewalError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, want, time.Until(f.RetryAt).Round(time.Second))
			assert.Equal(t, 1, f.Failures)
			advance(want - 2*time.Second)
			require.Error(t, w.call(c))
			assert.Equal(t, 1, w.bought())
			advance(3 * time.Second)
			require.NoError(t, w.call(c))
		})
	}
}

func TestALockoutIsTypedAfterASessionHasBeenInUseToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Minute), agrentingtest.WithoutRateLimits())
		c := w.client(WithSession(SessionPolicy{Window: -1}))
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusTooManyRequests, "300").Always())
		advance(time.Minute)
		err := w.call(c)
		require.ErrorIs(t, err, ErrLockedOut)
		l, ok := errors.AsType[*LockoutError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, 5*time.Minute, time.Until(l.RetryAt).Round(time.Second))
	})
}

func TestWhatTheOtherDocumentedPathAnswersCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const route = "POST /auth/authenticate"
		w := newSessionWorld(t, agrentingtest.WithAuthPath("/auth/authenticate"), agrentingtest.WithoutRateLimits())
		w.srv.Fault(route, agrentingtest.Status(http.StatusServiceUnavailable, "AGENT_UNAVAILABLE").Times(1))
		c := w.client()
		require.ErrorIs(t, w.call(c), ErrServer)
		advance(2 * time.Second)
		require.NoError(t, w.call(c))
		assert.Equal(t, 1, w.bought(), "the path that is unknown is remembered")
		assert.Equal(t, 2, w.srv.Count(route))
	})
	w := newSessionWorld(t)
	require.NoError(t, w.call(w.client(WithRoutes(Routes{Authenticate: "/auth/authenticate"}))), "either way round")

	w = newSessionWorld(t, agrentingtest.WithAuthPath("/elsewhere"))
	require.ErrorIs(t, w.call(w.client()), ErrRouteNotFound)
}

func TestLogoutOnCloseSparesTheSessionsOfOthers(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	policy := WithSession(SessionPolicy{LogoutOnClose: true})
	c := w.client(policy, WithSession(SessionPolicy{Store: newFailingStore()}))
	require.NoError(t, w.call(c))
	require.NoError(t, c.Close())
	assert.Zero(t, w.srv.Count("DELETE /api/v1/auth/logout"))

	require.NoError(t, w.client(policy).Close())
	assert.Zero(t, w.srv.Count("DELETE /api/v1/auth/logout"), "there was no session to end")
}
