package rotation_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// middleman does what it is asked for, and lets the first answers to calls that
// issue keys say something else.
type middleman struct {
	http.RoundTripper

	spoil func(status int, body []byte) (int, []byte)
	times atomic.Int64
}

func (m *middleman) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := m.RoundTripper.RoundTrip(req)
	issues := req.Method == http.MethodPost && (strings.HasSuffix(req.URL.Path, "/rotate-key") || strings.HasSuffix(req.URL.Path, "/credentials"))
	if err != nil || !issues || m.times.Add(-1) < 0 {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	resp.StatusCode, body = m.spoil(resp.StatusCode, body)
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, err
}

// withStatus is what a gateway says in the platform's place.
func withStatus(code int) func(int, []byte) (int, []byte) {
	return func(int, []byte) (int, []byte) { return code, []byte(`{"errors":[{"code":"GATEWAY","message":"no"}]}`) }
}

// withWarning has a success say that something beside it went wrong.
func withWarning(status int, body []byte) (int, []byte) {
	return status, append([]byte(`{"errors":[{"code":"AUDIT_DELAYED","message":"later"}],`), bytes.TrimPrefix(body, []byte("{"))...)
}

func TestNoResponseLosesIssuedKey(t *testing.T) {
	t.Parallel()
	type answer struct {
		name    string
		spoil   func(int, []byte) (int, []byte)
		times   int64
		refusal bool
	}
	answers := []answer{{"a key and a warning", withWarning, 1 << 20, false}}
	for _, code := range []int{403, 404, 410, 422} {
		answers = append(answers, answer{fmt.Sprintf("%d, once", code), withStatus(code), 1, true})
	}
	for _, code := range []int{408, 409, 425, 429, 500, 502} {
		answers = append(answers, answer{fmt.Sprintf("%d, once", code), withStatus(code), 1, false},
			answer{fmt.Sprintf("%d, for a whole attempt", code), withStatus(code), sdktest.AskAttempts, false})
	}
	for _, strategy := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
		for _, owner := range []bool{false, true} {
			for _, a := range answers {
				if strategy == agrenting.Overlap && a.refusal {
					continue // here a refusal is believed: the old key does not tell
				}
				t.Run(fmt.Sprintf("%s, owner %v, %s", strategy, owner, a.name), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := sdktest.NewRotationWorld(t, agrentingtest.WithoutRateLimits())
						store := agrenting.MemoryStore()
						m := &middleman{RoundTripper: w.Server.Transport(), spoil: a.spoil}
						m.times.Store(a.times)
						p := agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID, Every: -1}
						if owner {
							p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
						}
						c := w.Client(store, p, agrenting.WithTransport(m))
						require.NoError(t, w.Call(c))
						for n := 0; ; n++ {
							_, err := c.Rotate(t.Context())
							require.NoError(t, w.Call(c), "whatever has become of the rotation: %v", err)
							if err == nil {
								break
							}
							require.Less(t, n, 2, "%v", err)
							e, ok := errors.AsType[*agrenting.RotationError](err)
							require.True(t, ok, "%v", err)
							require.NotContains(t, e.State, "Nothing was created", "a key was")
						}
						w.OneLiveKey(store)
						require.NoError(t, c.Close())
					})
				})
			}
		}
	}
}
