package agrenting_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestReady(t *testing.T) {
	t.Parallel()
	errAway := errors.New("away")
	for name, c := range map[string]struct {
		status agrenting.Status
		is     error
		says   string
	}{
		"ready":                            {status: agrenting.Status{State: agrenting.StateReady}},
		"renewing":                         {status: agrenting.Status{State: agrenting.StateRenewing}},
		"renewal fails, credential good":   {status: agrenting.Status{State: agrenting.StateReady, LastError: errAway, Failures: 3}},
		"store fails":                      {status: agrenting.Status{State: agrenting.StateReady, StoreError: errAway}},
		"key overdue":                      {status: agrenting.Status{State: agrenting.StateReady, Key: agrenting.KeyStatus{Overdue: true, LastError: errAway}}},
		"waiting for the first attempt":    {status: agrenting.Status{State: agrenting.StateWaiting}},
		"waiting for the second attempt":   {agrenting.Status{State: agrenting.StateWaiting, LastError: errAway, Failures: 1}, errAway, "the renewal of the credential has failed: away"},
		"empty":                            {agrenting.Status{State: agrenting.StateEmpty, Source: "WithStore"}, agrenting.ErrNoCredential, "none was obtained yet from WithStore"},
		"empty, and the source has failed": {agrenting.Status{State: agrenting.StateEmpty, LastError: errAway, Failures: 1}, errAway, "away"},
		"failing": {
			agrenting.Status{State: agrenting.StateFailing, LastError: errAway, Failures: 1, RetryAt: time.Unix(0, 0)},
			errAway,
			"agrenting: not ready: the renewal of the credential has failed: away. The next attempt is due at 1970-01-01T00:00:00Z",
		},
		"rejected": {agrenting.Status{State: agrenting.StateRejected, LastError: errAway}, errAway, "agrenting: not ready: away"},
		"closed":   {agrenting.Status{State: agrenting.StateClosed}, agrenting.ErrClosed, "not ready"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.status.Ready()
			if c.is == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, c.is)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// readiness is the body of a probe's answer.
type readiness struct {
	Ready         bool
	State, Reason string
}

// probe asks a client's handler.
func probe(t *testing.T, c *agrenting.Client) (int, readiness) {
	t.Helper()
	w := httptest.NewRecorder()
	c.ReadyHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	var r readiness
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &r))
	assert.Equal(t, r.Ready, w.Code == http.StatusOK)
	return w.Code, r
}

func TestReadyHandler_answer(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusUnauthorized, `{}`))
	for method, want := range map[string]int{http.MethodGet: 200, http.MethodHead: 200, http.MethodPost: 405, http.MethodOptions: 405} {
		w := httptest.NewRecorder()
		c.ReadyHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, "/readyz", nil))
		assert.Equal(t, want, w.Code, method)
		if want == http.StatusMethodNotAllowed {
			assert.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
			continue
		}
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
		assert.JSONEq(t, `{"ready":true,"state":"ready"}`, w.Body.String())
	}
}

func TestReadyHandler_healthy_noRequest(t *testing.T) {
	t.Parallel()
	for name, c := range rejectedCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				client := sdktest.ClientOf(t, w.Server, c.opts(t, agrenting.APIKey(w.Key.Secret))...)
				require.NoError(t, w.Call(client))
				before := w.Server.Stats().Requests
				for range 100 {
					code, _ := probe(t, client)
					assert.Equal(t, http.StatusOK, code)
					sdktest.Advance(time.Second)
				}
				assert.Equal(t, before, w.Server.Stats().Requests)
			})
		})
	}
}

// A pod that is not ready gets no traffic that would make it ready.
func TestReadyHandler_freshClient_becomesReady(t *testing.T) {
	t.Parallel()
	for name, c := range rejectedCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				client := sdktest.ClientOf(t, w.Server, c.opts(t, agrenting.APIKey(w.Key.Secret))...)
				_, _ = probe(t, client)
				sdktest.Advance(time.Second)
				code, r := probe(t, client)
				assert.Equal(t, http.StatusOK, code, r)
			})
		})
	}
}

func TestReadyHandler_slowSource_answersInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := sdktest.NewSource("k1")
		release := src.Hold()
		c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, `{}`), src)
		began := time.Now()
		code, r := probe(t, c)
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "empty", r.State)
		assert.Equal(t, 500*time.Millisecond, time.Since(began))
		release()
		synctest.Wait()
		code, _ = probe(t, c)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, 1, src.Count())
	})
}

func TestReadyHandler_failingExchange_keepsThePauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(503, "").Always())
		client := w.Client()
		for range 60 {
			code, r := probe(t, client)
			assert.Equal(t, http.StatusServiceUnavailable, code)
			assert.NotEmpty(t, r.Reason)
			sdktest.AssertNoSecret(t, r.Reason, w.Key.Secret)
			sdktest.Advance(time.Second)
		}
		assert.LessOrEqual(t, w.Exchanges(), 12, "one attempt per step of the backoff")
		w.Server.ClearFaults()
		sdktest.Advance(30 * time.Second)
		code, r := probe(t, client)
		assert.Equal(t, http.StatusOK, code, r)
	})
}

// A pod whose key is rejected gets no traffic that would show that it is accepted again.
func TestReadyHandler_rejected_recovers(t *testing.T) {
	t.Parallel()
	for name, c := range rejectedCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				client := sdktest.ClientOf(t, w.Server, c.opts(t, agrenting.APIKey(w.Key.Secret))...)
				require.NoError(t, w.Call(client))
				w.Server.Fault("*", agrentingtest.Status(401, "UNAUTHORIZED").Always())
				require.Error(t, w.Call(client))
				sdktest.Advance(time.Second)
				before := w.Server.Stats().Requests
				for range 60 {
					code, r := probe(t, client)
					assert.Equal(t, http.StatusServiceUnavailable, code)
					assert.Equal(t, "rejected", r.State, r.Reason)
					sdktest.AssertNoSecret(t, r.Reason, w.Key.Secret)
					sdktest.Advance(10 * time.Second)
				}
				assert.LessOrEqual(t, w.Server.Stats().Requests-before, int64(200), "10 minutes")
				w.Server.ClearFaults()
				for range 12 {
					_, _ = probe(t, client)
					sdktest.Advance(10 * time.Second)
				}
				code, r := probe(t, client)
				assert.Equal(t, http.StatusOK, code, r)
			})
		})
	}
}

func TestReadyHandler_rejected_findsTheNewKey(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T, key string) (agrenting.CredentialSource, func(key string)){
		"file": func(t *testing.T, key string) (agrenting.CredentialSource, func(string)) {
			t.Helper()
			path := filepath.Join(t.TempDir(), "key")
			write := func(key string) { require.NoError(t, os.WriteFile(path, []byte(key), 0o600)) }
			write(key)
			return agrenting.FileSource(path), write
		},
		"source": func(_ *testing.T, key string) (agrenting.CredentialSource, func(string)) {
			src := sdktest.NewSource(key)
			return src, func(key string) { src.Replace(agrenting.APIKey(key)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				src, replace := prepare(t, w.Key.Secret)
				client := sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(src))
				w.Server.RevokeKey(w.Key.ID)
				require.Error(t, w.Call(client))
				code, _ := probe(t, client)
				require.Equal(t, http.StatusServiceUnavailable, code)
				replace(w.Server.NewKey(w.Agent.ID).Secret)
				sdktest.Advance(10 * time.Second)
				_, _ = probe(t, client)
				synctest.Wait()
				code, r := probe(t, client)
				assert.Equal(t, http.StatusOK, code, r)
			})
		})
	}
}

func TestReadyHandler_closedClient_unavailable(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusUnauthorized, `{}`))
	require.NoError(t, c.Close())
	code, r := probe(t, c)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Equal(t, "closed", r.State)
}
