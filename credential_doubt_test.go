package agrenting_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestInvalidKeyFileKeepsOldKey(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]func(key string) string{
		"half a key": func(key string) string { return key[:len(key)/2] },
		"wrong key":  func(key string) string { return key[:len(key)-4] + "0000" },
		"empty":      func(string) string { return "" },
	} {
		for how, opts := range map[string][]agrenting.Option{"": nil, ", sessions": {agrenting.WithSession()}} {
			t.Run(name+how, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "key")
				write := func(text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(30*time.Second))
					write(w.Key.Secret)
					c, err := agrenting.New(append([]agrenting.Option{
						agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
						agrenting.WithCredentialSource(agrenting.FileSource(path)),
					}, opts...)...)
					require.NoError(t, err)
					work := func(when string) {
						for end := time.Now().Add(time.Minute); time.Now().Before(end); sdktest.Advance(4 * time.Second) {
							var calls sync.WaitGroup
							for range 4 { // at the same time
								calls.Go(func() { assert.NoError(t, w.Call(c), when) })
							}
							calls.Wait()
						}
					}
					work("first key")
					write(broken(w.Key.Secret))
					work("broken file")
					next := w.Server.NewKey(w.Agent.ID)
					write(next.Secret)
					work("corrected file")
					w.Server.RevokeKey(w.Key.ID)
					w.Server.RevokeSessions()
					work("first key revoked")
					assert.Zero(t, w.Server.Stats().RateLimited)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestFixedKeyIsResentTwiceAfterASuccess(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		accepted time.Duration // before the refusals; 0 for never
		refusals int
		requests int
		code     int
	}{
		"never accepted":               {0, 1, 1, http.StatusUnauthorized},
		"accepted long ago":            {2 * time.Second, 1, 1, http.StatusUnauthorized},
		"accepted lately, one refusal": {time.Millisecond, 1, 2, http.StatusOK},
		"accepted lately, two":         {time.Millisecond, 2, 3, http.StatusOK},
		"accepted lately, three":       {time.Millisecond, 3, 3, http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				refuse := 0
				base := &sdktest.Recorder{}
				base.Then = func(int, sdktest.Seen) *http.Response {
					if refuse > 0 {
						refuse--
						return sdktest.Reply(http.StatusUnauthorized, sdktest.RevokedBody)
					}
					return sdktest.Reply(http.StatusOK, "{}")
				}
				tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("k1")))
				before := 0
				if tc.accepted > 0 {
					_, _, err := sdktest.Get(t.Context(), tr, "/x")
					require.NoError(t, err)
					sdktest.Advance(tc.accepted)
					before = 1
				}
				refuse = tc.refusals
				began := time.Now()
				code, _, err := sdktest.Get(t.Context(), tr, "/x")
				require.NoError(t, err)
				assert.Equal(t, tc.code, code)
				assert.Len(t, base.Requests(), before+tc.requests, "and no question about the key")
				if tc.requests == 1 {
					assert.Zero(t, time.Since(began), "one round trip")
				}
			})
		})
	}
}

func TestPermanentFailuresAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	failing := func(err error) func(*testing.T) []agrenting.Option {
		return func(*testing.T) []agrenting.Option {
			return []agrenting.Option{agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
				return agrenting.Credential{}, fmt.Errorf("vault: %w", err)
			}))}
		}
	}
	untrusted := &url.Error{Op: "Get", URL: "https://vault.test", Err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}
	lockout := &agrenting.LockoutError{RetryAt: time.Now().Add(time.Hour)}
	for name, tc := range map[string]struct {
		opts func(*testing.T) []agrenting.Option
		want error
	}{
		"no credential":         {failing(agrenting.ErrNoCredential), agrenting.ErrNoCredential},
		"invalid credential":    {failing(agrenting.ErrInvalidCredential), agrenting.ErrInvalidCredential},
		"other environment":     {failing(agrenting.ErrEnvironmentMismatch), agrenting.ErrEnvironmentMismatch},
		"unreadable":            {failing(fs.ErrPermission), fs.ErrPermission},
		"untrusted certificate": {failing(untrusted), untrusted},
		"lockout":               {failing(lockout), lockout},
		"missing file": {func(t *testing.T) []agrenting.Option {
			t.Helper()
			return []agrenting.Option{agrenting.WithCredentialSource(agrenting.FileSource(filepath.Join(t.TempDir(), "missing")))}
		}, agrenting.ErrNoCredential},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := tc.opts(t)
			synctest.Test(t, func(t *testing.T) {
				c, err := agrenting.New(append(opts, agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(&sdktest.Recorder{}))...)
				require.NoError(t, err)
				began := time.Now()
				for range 3 {
					_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
					require.ErrorIs(t, err, tc.want)
					_, renewal := errors.AsType[*agrenting.RenewalError](err)
					assert.True(t, renewal)
				}
				assert.Zero(t, time.Since(began))
				require.NoError(t, c.Close())
			})
		})
	}
}

// Local firewalls deny connections with the errors of files that may not be read.
func TestDeniedConnectionIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ECONNREFUSED} {
		t.Run(errno.Error(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				base := w.Server.Transport()
				until := time.Now().Add(2 * time.Second)
				c := w.Client(agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					if time.Now().Before(until) {
						return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
					}
					return base.RoundTrip(r)
				})))
				require.NoError(t, w.Call(c))
				assert.Less(t, time.Since(until), 4*time.Second)
			})
		})
	}
}

func TestRefusedKeyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		w.Server.RevokeKey(w.Key.ID)
		c := w.Client()
		began := time.Now()
		require.ErrorIs(t, w.Call(c), agrenting.ErrUnauthorized)
		assert.Less(t, time.Since(began), 500*time.Millisecond)
		assert.Equal(t, 1, w.Exchanges())
		require.NoError(t, c.Close())
	})
}

func TestLockedOutAddressIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusTooManyRequests, "300").Always())
		c := w.Client()
		began := time.Now()
		for range 3 {
			err := w.Call(c)
			lockout, ok := errors.AsType[*agrenting.LockoutError](err)
			require.True(t, ok, "%v", err)
			assert.WithinDuration(t, began.Add(5*time.Minute), lockout.RetryAt, 2*time.Second)
		}
		assert.Zero(t, time.Since(began))
		assert.Equal(t, 1, w.Exchanges())
		require.NoError(t, c.Close())
	})
}

// outage is a source that fails until a time.
type outage struct {
	until time.Time
	calls atomic.Int64
	stuck bool // wait for the end of the context instead
}

var errOutage = errors.New("the vault is down")

func (s *outage) Credential(ctx context.Context) (agrenting.Credential, error) {
	s.calls.Add(1)
	if s.stuck {
		<-ctx.Done()
		return agrenting.Credential{}, ctx.Err()
	}
	if time.Now().Before(s.until) {
		return agrenting.Credential{}, errOutage
	}
	return agrenting.APIKey("k1"), nil
}

// Jitter makes each backoff step of 0.25, 0.5, 1, 2, 4 and 8 s between half as
// long and as long as that. The bounds hold for every draw.
func TestRequestsWaitOutFailedRenewals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		lasts     time.Duration // the outage
		stuck     bool
		wait      time.Duration // RenewalWait
		deadline  time.Duration // 0 for none
		err       error         // nil if the request succeeds
		least     time.Duration
		most      time.Duration
		attempts  int64 // at most
		noRenewal bool  // no RenewalError
	}{
		"over in time":               {lasts: 2 * time.Second, least: 2 * time.Second, most: 6 * time.Second, attempts: 6},
		"default exceeded":           {lasts: time.Hour, err: errOutage, least: 3800 * time.Millisecond, most: 10 * time.Second, attempts: 8},
		"2 s exceeded":               {lasts: time.Hour, wait: 2 * time.Second, err: errOutage, least: 500 * time.Millisecond, most: 2 * time.Second, attempts: 6},
		"not waited for":             {lasts: time.Hour, wait: -1, err: errOutage, attempts: 1},
		"deadline before the retry":  {lasts: time.Hour, deadline: 10 * time.Millisecond, err: errOutage, attempts: 1},
		"deadline during an attempt": {stuck: true, deadline: 10 * time.Millisecond, err: context.DeadlineExceeded, least: 10 * time.Millisecond, most: 10 * time.Millisecond, attempts: 1, noRenewal: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src := &outage{until: time.Now().Add(tc.lasts), stuck: tc.stuck}
				tr := sdktest.TransportOver(t, &sdktest.Recorder{}, src, agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: tc.wait}))
				began := time.Now()
				type outcome struct {
					took time.Duration
					err  error
				}
				outcomes := make([]outcome, 20)
				var wg sync.WaitGroup
				for i := range outcomes {
					wg.Go(func() {
						ctx := t.Context()
						if tc.deadline > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, tc.deadline)
							defer cancel()
						}
						_, _, err := sdktest.Get(ctx, tr, "/x")
						outcomes[i] = outcome{time.Since(began), err}
					})
				}
				wg.Wait()
				for _, o := range outcomes {
					assert.GreaterOrEqual(t, o.took, tc.least)
					assert.LessOrEqual(t, o.took, tc.most)
					require.ErrorIs(t, o.err, tc.err)
					renewal, ok := errors.AsType[*agrenting.RenewalError](o.err)
					require.Equal(t, tc.err != nil && !tc.noRenewal, ok)
					if ok {
						assert.True(t, renewal.RetryAt.After(began.Add(o.took)), "says when it is tried again")
					}
				}
				assert.LessOrEqual(t, src.calls.Load(), tc.attempts, "one attempt per step, whatever the number of requests")
			})
		})
	}
}

// A source that has failed for longer than RenewalWait keeps no request waiting.
func TestLongOutageFailsRequestsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := &outage{until: time.Now().Add(time.Minute)}
		tr := sdktest.TransportOver(t, &sdktest.Recorder{}, src)
		_, _, err := sdktest.Get(t.Context(), tr, "/x")
		require.ErrorIs(t, err, errOutage)
		sdktest.Advance(10 * time.Second)
		for range 10 {
			began := time.Now()
			_, _, err = sdktest.Get(t.Context(), tr, "/x")
			require.ErrorIs(t, err, errOutage)
			assert.Zero(t, time.Since(began))
			sdktest.Advance(time.Second)
		}
		sdktest.Advance(time.Minute)
		_, _, err = sdktest.Get(t.Context(), tr, "/x")
		assert.NoError(t, err)
	})
}

func TestResendsUseNewConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var requests, questions []bool // whether their connection is closed
		platform := sdktest.Verifying("k2", sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			requests = append(requests, r.Close)
			if len(requests) < 3 { // the second one is a stray 401
				return sdktest.Reply(http.StatusUnauthorized, "{}"), nil
			}
			return sdktest.Reply(http.StatusOK, "{}"), nil
		}))
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if sdktest.IsVerify(r) && sdktest.SecretOf(r.Header) == "k1" {
				questions = append(questions, r.Close)
			}
			return platform.RoundTrip(r)
		})
		req := sdktest.Request(t, http.MethodGet, "/x", nil)
		unchanged := sdktest.Freeze(t, req)
		resp, err := sdktest.TransportOver(t, base, sdktest.Refuser()).RoundTrip(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusOK, resp.StatusCode)
		assert.Equal(t, []bool{false, false, true}, requests, "only a resend with the same credential")
		assert.Equal(t, []bool{true, true, true}, questions)
		unchanged()
	})
}

// withVerify is a base on which Routes.Verify says the same of every session.
func withVerify(base http.RoundTripper, code int) http.RoundTripper {
	return sdktest.Between(base, func(r *http.Request) *http.Response {
		if !sdktest.IsVerify(r) || r.Header.Get("Authorization") == "" {
			return nil
		}
		return sdktest.Reply(code, `{"errors":[{"code":"ERROR","message":"not for sessions"}]}`)
	})
}

func TestVerifyRouteWithoutVerdictOnSessions(t *testing.T) {
	t.Parallel()
	const lasts = 10 * time.Minute
	for name, code := range map[string]int{"missing": http.StatusNotFound, "refuses all": http.StatusUnauthorized} {
		t.Run(name+", ended sessions", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				c := w.Client(agrenting.WithTransport(withVerify(w.Server.Transport(), code)))
				deaths := 0
				for began, last := time.Now(), time.Now(); time.Since(began) < lasts; sdktest.Advance(time.Second) {
					if time.Since(last) > 90*time.Second {
						w.Server.RevokeSessions()
						deaths, last = deaths+1, time.Now()
					}
					at := time.Now()
					require.NoError(t, w.Call(c))
					require.Less(t, time.Since(at), 3*time.Second)
				}
				assert.Equal(t, 1+deaths, w.Exchanges())
				assert.Zero(t, w.Server.Stats().RateLimited)
				require.NoError(t, c.Close())
			})
		})
		t.Run(name+", stray 401s", func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				n := 0
				base := sdktest.Between(withVerify(w.Server.Transport(), code), func(r *http.Request) *http.Response {
					if r.URL.Path != "/api/v1/agents" {
						return nil
					}
					n++
					if n%3 != 0 {
						return nil
					}
					return sdktest.Reply(http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`)
				})
				c := w.Client(agrenting.WithTransport(base))
				for began := time.Now(); time.Since(began) < lasts; sdktest.Advance(time.Second) {
					at := time.Now()
					require.NoError(t, w.Call(c))
					require.Less(t, time.Since(at), 3*time.Second)
				}
				assert.LessOrEqual(t, w.Exchanges(), 1+2*int(lasts/time.Minute))
				assert.Zero(t, w.Server.Stats().RateLimited)
				require.NoError(t, c.Close())
			})
		})
	}
}
