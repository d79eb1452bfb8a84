package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// failingAtOnce lets requests fail with a renewal, without waiting for the next attempt.
var failingAtOnce = agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: -1})

// editing changes the data of responses to POST requests to a path.
type editing struct {
	http.RoundTripper

	path string
	edit func(data map[string]any)
}

func (e editing) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := e.RoundTripper.RoundTrip(req)
	if err != nil || !strings.HasSuffix(req.URL.Path, e.path) || req.Method != http.MethodPost || resp.StatusCode >= 300 {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	var m map[string]any
	if json.Unmarshal(body, &m) == nil {
		if data, ok := m["data"].(map[string]any); ok {
			e.edit(data)
		}
		body, err = json.Marshal(m)
	}
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, err
}

func TestSessionWithoutExpiry(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"2099-12-31T23:59:59Z", "2262-04-12T00:00:00Z", "2300-01-01T00:00:00Z", "9999-12-31T23:59:59Z"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t)
				c := w.Client(agrenting.WithTransport(editing{w.Server.Transport(), "/auth/authenticate", func(d map[string]any) { d["expires_at"] = end }}))
				for range 30 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Second)
				}
				assert.Equal(t, 1, w.Exchanges())
			})
		})
	}
}

func TestTokenWithoutExpiryIsFetchedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		token, _ := w.Server.NewSession(w.Key.Secret)
		var asked atomic.Int64
		c := sdktest.ClientOver(t, w.Server.Transport(), agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			asked.Add(1)
			return agrenting.SessionToken(token, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)), nil
		}), agrenting.WithBaseURL(w.Server.URL))
		for range 30 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(time.Second)
		}
		assert.EqualValues(t, 1, asked.Load())
	})
}

// A platform may give the same session again until shortly before its end.
func TestUnchangedSessionIsNotRequestedAtEveryCheck(t *testing.T) {
	t.Parallel()
	for name, keys := range sdktest.KeySources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour), agrentingtest.WithoutRateLimits())
				var mu sync.Mutex
				var token, expires any
				var end time.Time
				c := w.Client(append(keys(w), agrenting.WithTransport(editing{w.Server.Transport(), "/auth/authenticate", func(d map[string]any) {
					mu.Lock()
					defer mu.Unlock()
					if time.Now().Before(end.Add(-2 * time.Minute)) {
						d["session_token"], d["expires_at"] = token, expires
						return
					}
					token, expires = d["session_token"], d["expires_at"]
					end, _ = time.Parse(time.RFC3339, d["expires_at"].(string)) //nolint:errcheck,forcetypeassert // it is
				}}))...)
				for range 59 * 60 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Second)
				}
				assert.LessOrEqual(t, w.Exchanges(), 15)
				assert.Zero(t, w.Unauthorized())
			})
		})
	}
}

// A platform may extend the session instead of giving another token.
func TestExtendedSessionHasItsNewExpiry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		c := w.Client(agrenting.WithTransport(sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
			end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
			return sdktest.Reply(http.StatusOK, `{"data":{"session_token":"the-only-session","expires_at":"`+end+`"}}`), nil
		})))
		for range 3 {
			cred, err := c.Credential(t.Context())
			require.NoError(t, err)
			assert.Equal(t, c.Status().Expires.UTC().Round(time.Second), cred.Expires().UTC())
			sdktest.Advance(55 * time.Minute)
			synctest.Wait()
		}
	})
}

// A slow load of the store may last until after the session's end.
func TestSessionEndingDuringCheckIsReplaced(t *testing.T) {
	t.Parallel()
	for _, window := range []float64{-1, 0} {
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Minute), agrentingtest.WithoutRateLimits())
			store := &sdktest.BreakableStore{Store: sdktest.StoreWith(agrenting.APIKey(w.Key.Secret))}
			store.Slow.Store(int64(930 * time.Millisecond))
			c := w.Client(agrenting.WithStore(store), agrenting.WithSession(agrenting.SessionPolicy{Window: window}))
			for range 25 * 60 {
				require.NoError(t, w.Call(c))
				sdktest.Advance(time.Second)
			}
			assert.Zero(t, w.Unauthorized(), "window %v", window)
		})
	}
}

func TestLateSourceIsAskedUntilSuccessor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Minute))
		var mu sync.Mutex
		var token string
		var end time.Time
		c := sdktest.ClientOver(t, w.Server.Transport(), agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			mu.Lock()
			defer mu.Unlock()
			if token == "" || time.Since(end) > 2*time.Second {
				token, end = w.Server.NewSession(w.Key.Secret)
			}
			return agrenting.SessionToken(token, end), nil
		}), agrenting.WithBaseURL(w.Server.URL))
		require.NoError(t, w.Call(c))
		sdktest.Advance(10*time.Minute + 10*time.Second)
		synctest.Wait()
		require.NoError(t, sdktest.CallOnce(t, c, w.Agent.ID))
	})
}

func TestPastOutageDoesNotDelayRejection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(2*time.Hour), agrentingtest.WithoutRateLimits())
		c := w.Client()
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
		sdktest.Advance(time.Until(c.Status().NextRenewal) + 10*time.Minute)
		require.NoError(t, w.Call(c))
		w.Server.ClearFaults()
		w.Server.RevokeSessions()
		require.NoError(t, w.Call(c))
	})
}

func TestRetryAfterEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Strategy: agrenting.Overlap}, agrenting.WithSession(agrenting.SessionPolicy{Window: -1}))
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, "2"))
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		sdktest.Advance(7 * 24 * time.Hour)
		synctest.Wait()
		assert.False(t, w.Server.KeyAlive(w.Key.Secret), "a week later")
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
	})
}

func TestExchangeWaitIsNotClockSkew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(15*time.Second))
		store := sdktest.NewFailingStore()
		a, b := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store})), w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(20*time.Second))
		go func() { _ = w.Call(a) }()
		sdktest.Advance(time.Second)
		require.NoError(t, w.Call(b))
		sdktest.Advance(20 * time.Second)
		for who, c := range map[string]*agrenting.Client{"the one that obtained it": a, "the one that waited for it": b} {
			assert.Zero(t, c.Status().ClockSkew, who)
			assert.False(t, c.Status().Expires.IsZero(), who)
		}
	})
}

func TestRouteRefusingEverySessionCausesFewExchanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		w.Server.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusUnauthorized, "").Always())
		c := w.Client()
		for range 24 * 60 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
			sdktest.Advance(time.Minute)
		}
		assert.LessOrEqual(t, w.Exchanges(), 24*6+5, "in a day")
	})
}

// panickyStore panics in one of its operations.
type panickyStore struct {
	agrenting.Store

	operation string
}

func (s panickyStore) at(operation string) {
	if s.operation == operation {
		panic(operation)
	}
}

func (s panickyStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	s.at("load")
	return s.Store.Load(ctx, name)
}

func (s panickyStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	s.at("save")
	return s.Store.Save(ctx, name, data, previous)
}

func TestPanickingSessionStoreCostsOnlySharing(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"load", "save"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour))
				c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: panickyStore{agrenting.MemoryStore(), operation}}))
				for range 3 * 60 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(time.Minute)
				}
				assert.InDelta(t, 4, w.Exchanges(), 1)
			})
		})
	}
}

// A holder that never finishes and keeps extending the lease costs 10 s.
func TestEndlessLeaseDisablesOnlySharing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store := agrenting.MemoryStore()
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		slot := sdktest.SessionSlot(c, store, agrenting.APIKey(w.Key.Secret))
		held, err := slot.Acquire(t.Context(), record.Entry[record.Session]{}, record.Session{}, record.Terms{
			Holder: "another", Duration: 3 * time.Second, Every: time.Second,
		})
		require.NoError(t, err)
		defer held.Keep(t.Context())()
		began := time.Now()
		require.NoError(t, w.Call(c))
		assert.InDelta(t, 10, time.Since(began).Seconds(), 0.1)
	})
}

// The store still has the session that was renewed early, and not the new one.
func TestOlderSessionOfReadOnlyStoreIsNotAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for range 12 { // the jitter of the windows decides for how long an adopted one would be used
			w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour))
			store := sdktest.NewFailingStore()
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
			require.NoError(t, w.Call(c))
			store.Failing("save", errors.New("disk full"))
			sdktest.Advance(time.Minute)
			w.Server.RevokeSessions()
			require.NoError(t, w.Call(c))
			refused := w.Unauthorized()
			sdktest.Advance(46 * time.Minute)
			for range 240 {
				sdktest.Advance(4 * time.Second)
				require.NoError(t, sdktest.CallOnce(t, c, w.Agent.ID))
			}
			assert.Equal(t, refused, w.Unauthorized(), "the session in the store is dead")
			require.NoError(t, c.Close())
		}
	})
}

// The key is replaced while the process that obtains a session with it is waited for.
func TestKeyReplacedDuringLeaseWaitIsNotExchanged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store, src := agrenting.MemoryStore(), sdktest.NewSource(w.Key.Secret)
		c := w.Client(agrenting.WithCredentialSource(src), agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		slot := sdktest.SessionSlot(c, store, agrenting.APIKey(w.Key.Secret))
		_, err := slot.Acquire(t.Context(), record.Entry[record.Session]{}, record.Session{}, record.Terms{
			Holder: "killed", Duration: 3 * time.Second, Every: time.Second,
		})
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- w.Call(c) }()
		sdktest.Advance(time.Second)
		src.Replace(agrenting.APIKey(w.Server.NewKey(w.Agent.ID).Secret))
		w.Server.RevokeKey(w.Key.ID)
		require.NoError(t, <-done)
		assert.Equal(t, 1, w.Exchanges(), "the dead key is not sent")
		assert.Zero(t, w.Unauthorized())
	})
}

// A session that was obtained with another key does not make a session of this one too
// old.
func TestSessionOfNewKeyIsAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store, path := sdktest.NewFailingStore(), filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(w.Key.Secret), 0o600))
		next := w.Server.NewKey(w.Agent.ID)
		other := w.Client(agrenting.WithCredential(agrenting.APIKey(next.Secret)), agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.NoError(t, w.Call(other))
		sdktest.Advance(time.Minute)
		c := w.Client(agrenting.WithCredentialSource(agrenting.FileSource(path)), agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.NoError(t, w.Call(c))
		require.Equal(t, 2, w.Exchanges(), "one with each key")
		require.NoError(t, os.WriteFile(path, []byte(next.Secret), 0o600))
		sdktest.Advance(20 * time.Second)
		require.NoError(t, w.Call(c))
		synctest.Wait()
		assert.Equal(t, other.Status().Fingerprint, c.Status().Fingerprint)
		assert.Equal(t, 2, w.Exchanges())
	})
}

func TestAdoptedSessionIsRenewedEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(20*time.Hour))
		store := sdktest.NewFailingStore()
		first := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.NoError(t, w.Call(first))
		require.NoError(t, first.Close())
		sdktest.Advance(18*time.Hour + 30*time.Minute)
		second := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.NoError(t, w.Call(second))
		s := second.Status()
		assert.InDelta(t, 60, s.Expires.Sub(s.NextRenewal).Minutes(), 7)
		require.Equal(t, 1, w.Exchanges())
		sdktest.Advance(time.Hour)
		third := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.NoError(t, w.Call(third))
		synctest.Wait()
		assert.Equal(t, 2, w.Exchanges(), "by the second, in its window")
	})
}

func TestRetryAfterIsSharedByProcesses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		store := sdktest.NewFailingStore()
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, "60").Always())
		for range 10 {
			c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
			require.Error(t, w.Call(c))
			sdktest.Advance(5 * time.Second)
			require.NoError(t, c.Close())
		}
		assert.Equal(t, 1, w.Exchanges())
	})
}

func TestLogoutOnCloseEndsOnlyItsSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		p := agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: true})
		a, b := w.Client(p), w.Client(p)
		require.NoError(t, w.Call(a))
		require.NoError(t, w.Call(b))
		require.NoError(t, a.Close())
		require.NoError(t, sdktest.CallOnce(t, b, w.Agent.ID))
	})
}

func TestLogoutOnCloseEndsSessionOfRotatedKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(nil, agrenting.RotationPolicy{Store: agrenting.MemoryStore(), Every: -1, Strategy: agrenting.Overlap, Grace: 5 * time.Second},
			agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: true}))
		require.NoError(t, w.Call(c))
		go func() { _, _ = c.Rotate(context.Background()) }() //nolint:usetesting // it ends with the client
		sdktest.Advance(2 * time.Second)
		synctest.Wait()
		go func() {
			sdktest.Advance(time.Second)
			_ = w.Call(c)
		}()
		require.NoError(t, c.Close())
		last := ""
		for _, r := range w.Server.Requests() {
			if auth := r.Header.Get("Authorization"); auth != "" && r.Status == http.StatusOK {
				last = auth
			}
		}
		_, err := w.Server.Verify(http.Header{"Authorization": {last}})
		require.Error(t, err, "the last session is ended")
	})
}

func TestSessionOfFixedKeyIsRechecked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		var panicked atomic.Bool
		c := w.Client(failingAtOnce, agrenting.WithObserver(func(e agrenting.Event) {
			if e.Err != nil && strings.Contains(e.Err.Error(), "panicked") {
				panicked.Store(true)
			}
		}))
		require.NoError(t, w.Call(c))
		sdktest.Advance(6 * time.Second) // the session is not young any more
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Times(1))
		require.Error(t, sdktest.RenewSession(t.Context(), w.Server, c))
		sdktest.Advance(2 * time.Second) // the pause is over, and the window has not begun
		require.NoError(t, w.Call(c))
		synctest.Wait()
		assert.False(t, panicked.Load())
	})
}
