package agrenting

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

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
)

// editing changes the data of answers to POST requests to a path.
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

// callOnce makes a request whose body can be sent only once.
func callOnce(t *testing.T, c *Client, agent string) error {
	t.Helper()
	body := struct{ io.Reader }{strings.NewReader(`{"agent_id":"` + agent + `","task_type":"test"}`)}
	_, err := c.Do(t.Context(), http.MethodPost, "/api/v1/tasks", body, nil, CallHeader("Content-Type", "application/json"))
	return err
}

func TestASessionWithoutEndIsOneOfUnknownExpiry(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"2099-12-31T23:59:59Z", "2262-04-12T00:00:00Z", "2300-01-01T00:00:00Z", "9999-12-31T23:59:59Z"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t)
				c := w.client(WithTransport(editing{w.srv.Transport(), "/auth/authenticate", func(d map[string]any) { d["expires_at"] = end }}))
				for range 30 {
					require.NoError(t, w.call(c))
					advance(time.Second)
				}
				assert.Equal(t, 1, w.bought())
			})
		})
	}
}

func TestACallersTokenWithoutEndIsAskedForOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		token, _ := w.srv.NewSession(w.key.Secret)
		var asked atomic.Int64
		c := clientOver(t, w.srv.Transport(), CredentialSourceFunc(func(context.Context) (Credential, error) {
			asked.Add(1)
			return SessionToken(token, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)), nil
		}), WithBaseURL(w.srv.URL))
		for range 30 {
			require.NoError(t, w.call(c))
			advance(time.Second)
		}
		assert.EqualValues(t, 1, asked.Load())
	})
}

// A platform may give the same session again until shortly before its end.
func TestAPlatformWithoutASuccessorIsNotAskedAtEveryLook(t *testing.T) {
	t.Parallel()
	for name, keys := range kindsOfKeys {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour), agrentingtest.WithoutRateLimits())
				var mu sync.Mutex
				var token, expires any
				var end time.Time
				c := w.client(append(keys(w), WithTransport(editing{w.srv.Transport(), "/auth/authenticate", func(d map[string]any) {
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
					require.NoError(t, w.call(c))
					advance(time.Second)
				}
				assert.LessOrEqual(t, w.bought(), 15)
				assert.Zero(t, w.unauthorized())
			})
		})
	}
}

// A slow look at the store may last until after the session's end.
func TestASessionThatEndsDuringALookIsReplaced(t *testing.T) {
	t.Parallel()
	for _, window := range []float64{-1, 0} {
		synctest.Test(t, func(t *testing.T) {
			w := newSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Minute), agrentingtest.WithoutRateLimits())
			store := &breakableStore{Store: storeWith(APIKey(w.key.Secret))}
			store.slow.Store(int64(930 * time.Millisecond))
			c := w.client(WithStore(store), WithSession(SessionPolicy{Window: window}))
			for range 25 * 60 {
				require.NoError(t, w.call(c))
				advance(time.Second)
			}
			assert.Zero(t, w.unauthorized(), "window %v", window)
		})
	}
}

func TestASourceThatIsLateIsAskedUntilItHasASuccessor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(10*time.Minute))
		var mu sync.Mutex
		var token string
		var end time.Time
		c := clientOver(t, w.srv.Transport(), CredentialSourceFunc(func(context.Context) (Credential, error) {
			mu.Lock()
			defer mu.Unlock()
			if token == "" || time.Since(end) > 2*time.Second {
				token, end = w.srv.NewSession(w.key.Secret)
			}
			return SessionToken(token, end), nil
		}), WithBaseURL(w.srv.URL))
		require.NoError(t, w.call(c))
		advance(10*time.Minute + 10*time.Second)
		synctest.Wait()
		require.NoError(t, callOnce(t, c, w.agent.ID))
	})
}

func TestAnOutageThatIsOverDoesNotDelayWhatARejectionNeeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(2*time.Hour), agrentingtest.WithoutRateLimits())
		c := w.client()
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
		advance(time.Until(c.Status().NextRenewal) + 10*time.Minute)
		require.NoError(t, w.call(c))
		w.srv.ClearFaults()
		w.srv.RevokeSessions()
		require.NoError(t, w.call(c))
	})
}

func TestARetryAfterIsOverWhenItsTimeHasCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		c := w.client(MemoryStore(), RotationPolicy{Strategy: Overlap}, WithSession(SessionPolicy{Window: -1}))
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, "2"))
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		advance(7 * 24 * time.Hour)
		synctest.Wait()
		assert.False(t, w.srv.KeyAlive(w.key.Secret), "a week later")
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
	})
}

func TestWaitingForAnExchangeIsNoClockSkew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(15*time.Second))
		store := newFailingStore()
		a, b := w.client(WithSession(SessionPolicy{Store: store})), w.client(WithSession(SessionPolicy{Store: store}))
		w.srv.Fault(routeAuthenticate, agrentingtest.Delay(20*time.Second))
		go func() { _ = w.call(a) }()
		advance(time.Second)
		require.NoError(t, w.call(b))
		advance(20 * time.Second)
		for who, c := range map[string]*Client{"who bought it": a, "who waited for it": b} {
			assert.Zero(t, c.Status().ClockSkew, who)
			assert.False(t, c.Status().Expires.IsZero(), who)
		}
	})
}

func TestARouteThatRefusesEverySessionCostsFewOfThem(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		w.srv.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusUnauthorized, "").Always())
		c := w.client()
		for range 24 * 60 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
			advance(time.Minute)
		}
		assert.LessOrEqual(t, w.bought(), 24*6+5, "in a day")
	})
}

// panickyStore panics in one of its operations.
type panickyStore struct {
	Store

	operation string
}

func (s panickyStore) at(operation string) {
	if s.operation == operation {
		panic(operation)
	}
}

func (s panickyStore) Load(ctx context.Context, name string) (Record, error) {
	s.at("load")
	return s.Store.Load(ctx, name)
}

func (s panickyStore) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	s.at("save")
	return s.Store.Save(ctx, name, data, previous)
}

func TestPanickingSessionStoreCostsOnlySharing(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"load", "save"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour))
				c := w.client(WithSession(SessionPolicy{Store: panickyStore{MemoryStore(), operation}}))
				for range 3 * 60 {
					require.NoError(t, w.call(c))
					advance(time.Minute)
				}
				assert.InDelta(t, 4, w.bought(), 1)
			})
		})
	}
}

// A holder that never finishes and keeps extending the lease costs 10 s.
func TestLeaseThatNeverEndsCostsOnlySharing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		store := MemoryStore()
		c := w.client(WithSession(SessionPolicy{Store: store}))
		slot := sessionSlot(c, APIKey(w.key.Secret))
		held, err := slot.Acquire(t.Context(), record.Entry[record.Session]{}, record.Session{}, record.Terms{
			Holder: "another", Duration: 3 * time.Second, Every: time.Second,
		})
		require.NoError(t, err)
		defer held.Keep(t.Context())()
		began := time.Now()
		require.NoError(t, w.call(c))
		assert.InDelta(t, 10, time.Since(began).Seconds(), 0.1)
	})
}

// The store still has the session that was renewed early, and not the new one.
func TestAnOlderSessionOfAStoreThatCannotBeWrittenIsNotAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(time.Hour))
		store := newFailingStore()
		c := w.client(WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(c))
		store.failing("save", errors.New("disk full"))
		advance(time.Minute)
		w.srv.RevokeSessions()
		require.NoError(t, w.call(c))
		for range 100 {
			advance(time.Minute)
			require.NoError(t, callOnce(t, c, w.agent.ID))
		}
	})
}

// What was bought with another key does not make a session of this one too old.
func TestTheSessionOfANewKeyIsAdoptedHoweverLongThatOfTheOldOneLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		store, path := newFailingStore(), filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(w.key.Secret), 0o600))
		next := w.srv.NewKey(w.agent.ID)
		other := w.client(WithCredential(APIKey(next.Secret)), WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(other))
		advance(time.Minute)
		c := w.client(WithCredentialSource(FileSource(path)), WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(c))
		require.Equal(t, 2, w.bought(), "one with each key")
		require.NoError(t, os.WriteFile(path, []byte(next.Secret), 0o600))
		advance(20 * time.Second)
		require.NoError(t, w.call(c))
		synctest.Wait()
		assert.Equal(t, other.Status().Fingerprint, c.Status().Fingerprint)
		assert.Equal(t, 2, w.bought())
	})
}

func TestAnAdoptedSessionIsRenewedAsEarlyAsABoughtOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithSessionTTL(20*time.Hour))
		store := newFailingStore()
		first := w.client(WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(first))
		require.NoError(t, first.Close())
		advance(18*time.Hour + 30*time.Minute)
		second := w.client(WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(second))
		s := second.Status()
		assert.InDelta(t, 60, s.Expires.Sub(s.NextRenewal).Minutes(), 7)
		require.Equal(t, 1, w.bought())
		advance(time.Hour)
		third := w.client(WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(third))
		synctest.Wait()
		assert.Equal(t, 2, w.bought(), "by the second, in its window")
	})
}

func TestThePauseThatThePlatformAsksForIsKeptByAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		store := newFailingStore()
		w.srv.Fault(routeAuthenticate, agrentingtest.StatusWithRetryAfter(http.StatusServiceUnavailable, "60").Always())
		for range 10 {
			c := w.client(WithSession(SessionPolicy{Store: store}))
			require.Error(t, w.call(c))
			advance(5 * time.Second)
			require.NoError(t, c.Close())
		}
		assert.Equal(t, 1, w.bought())
	})
}

func TestLogoutOnCloseEndsNobodyElsesSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		p := WithSession(SessionPolicy{LogoutOnClose: true})
		a, b := w.client(p), w.client(p)
		require.NoError(t, w.call(a))
		require.NoError(t, w.call(b))
		require.NoError(t, a.Close())
		require.NoError(t, callOnce(t, b, w.agent.ID))
	})
}

func TestLogoutOnCloseEndsTheSessionThatARotationHasBroughtMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		c := w.client(nil, RotationPolicy{Store: MemoryStore(), Every: -1, Strategy: Overlap, Grace: 5 * time.Second},
			WithSession(SessionPolicy{LogoutOnClose: true}))
		require.NoError(t, w.call(c))
		go func() { _, _ = c.Rotate(context.Background()) }() //nolint:usetesting // it ends with the client
		advance(2 * time.Second)
		synctest.Wait()
		go func() {
			advance(time.Second)
			_ = w.call(c)
		}()
		require.NoError(t, c.Close())
		last := ""
		for _, r := range w.srv.Requests() {
			if auth := r.Header.Get("Authorization"); auth != "" && r.Status == http.StatusOK {
				last = auth
			}
		}
		_, err := w.srv.Verify(http.Header{"Authorization": {last}})
		require.Error(t, err, "the last session is ended")
	})
}

func TestNobodyIsGivenAKeyThatIsBeingReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		c := w.client(MemoryStore(), RotationPolicy{Every: -1, Strategy: InPlace})
		require.NoError(t, w.call(c))
		w.srv.Fault(routeRotate, agrentingtest.Delay(time.Second))
		done := make(chan error)
		go func() { _, err := c.Rotate(t.Context()); done <- err }()
		advance(500 * time.Millisecond)
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		require.NoError(t, <-done)
		assert.NotContains(t, cred.Reveal(), w.key.Secret)
	})
}

func TestASessionOfAFixedKeyIsLookedAtWithoutHarm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t)
		var panicked atomic.Bool
		c := w.client(WithObserver(func(e Event) {
			if e.Err != nil && strings.Contains(e.Err.Error(), "panicked") {
				panicked.Store(true)
			}
		}))
		require.NoError(t, w.call(c))
		w.srv.Fault(routeAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "").Times(1))
		require.Error(t, renewSession(t.Context(), c))
		advance(2 * time.Second) // the pause is over, and the window has not begun
		require.NoError(t, w.call(c))
		synctest.Wait()
		assert.False(t, panicked.Load())
	})
}
