package rotation_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// keyless are responses to rotate-key in which the SDK does not find the new key.
var keyless = map[string]func(body string) string{
	"empty":        func(string) string { return "" },
	"no data":      func(string) string { return `{"data":null}` },
	"unknown name": func(body string) string { return strings.ReplaceAll(body, `"api_key"`, `"new_api_key"`) },
}

// withoutKey removes the key from all successful responses to rotate-key, also from
// replays.
func withoutKey(base http.RoundTripper, change func(body string) string) http.RoundTripper {
	return sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(r)
		if err != nil || !strings.HasSuffix(r.URL.Path, "/rotate-key") || resp.StatusCode >= http.StatusBadRequest {
			return resp, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		return sdktest.Reply(resp.StatusCode, change(string(body))), err
	})
}

func TestOwnerReplacesKeyMissingFromResponses(t *testing.T) {
	t.Parallel()
	for name, change := range keyless {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				c := w.Client(store, owned(w, agrenting.InPlace), agrenting.WithTransport(withoutKey(w.Server.Transport(), change)))
				require.NoError(t, w.Call(c))
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				require.NoError(t, w.Call(c))
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

// Without an owner, the operator's key is adopted after the last attempt.
func TestOperatorReplacesKeyMissingFromResponses(t *testing.T) {
	t.Parallel()
	for name, change := range keyless {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				set, initial := sdktest.ChangingKey(w.Key.Secret)
				c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}, initial,
					agrenting.WithTransport(withoutKey(w.Server.Transport(), change)))
				require.NoError(t, w.Call(c))
				_, err := c.Rotate(t.Context())
				e, ok := errors.AsType[*agrenting.RotationError](err)
				require.True(t, ok, "%v", err)
				require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
				assert.Contains(t, e.State, "The current key is dead")
				assert.Equal(t, name == "empty", e.RawResponse() == nil)

				set(w.Server.NewKey(w.Agent.ID).Secret)
				for range 60 {
					if err = w.Call(c); err == nil {
						break
					}
					sdktest.Advance(time.Second)
				}
				require.NoError(t, err)
				rec, _, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				assert.Nil(t, rec.Intent)
				require.NoError(t, c.Close())
			})
		})
	}
}

// A gateway responds with an empty success, and the platform is not asked. The key is
// live, so nothing is replaced.
func TestResponseWithoutKeyLeavesLiveKey(t *testing.T) {
	t.Parallel()
	for _, owner := range []bool{false, true} {
		t.Run(map[bool]string{false: "no owner", true: "owner"}[owner], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				p := owned(w, agrenting.InPlace)
				if !owner {
					p.Owner = nil
				}
				platform := w.Server.Transport()
				base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
					if strings.HasSuffix(r.URL.Path, "/rotate-key") {
						return sdktest.Reply(http.StatusOK, `{"data":null}`), nil
					}
					return platform.RoundTrip(r)
				})
				c := w.Client(store, p, agrenting.WithTransport(base))
				require.NoError(t, w.Call(c))
				_, err := c.Rotate(t.Context())
				require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
				require.NoError(t, w.Call(c))
				live := w.Server.LiveKeys(w.Agent.ID)
				require.Len(t, live, 1)
				assert.Equal(t, w.Key.ID, live[0].ID)
				require.NoError(t, c.Close())
			})
		})
	}
}
