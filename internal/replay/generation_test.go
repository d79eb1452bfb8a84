package replay_test

import (
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestKeyDyingDuringReplayFailsNoRequest(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	mine, err := agrenting.FileStore(path)
	require.NoError(t, err)
	theirs, err := agrenting.FileStore(path)
	require.NoError(t, err)
	other := w.Client(theirs, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1})
	var n atomic.Int64
	base := w.Server.Transport()
	c := w.Client(mine, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}, agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/v1/tasks" && n.Load() > 0 && n.Load() < 3 {
			n.Add(1)
			if _, err := other.Rotate(r.Context()); err != nil {
				return nil, err
			}
		}
		return base.RoundTrip(r)
	})))
	require.NoError(t, w.Call(c))
	n.Store(1) // another process rotates under the request, and under its replay
	require.NoError(t, w.Call(c))
	require.NoError(t, w.Call(c))
}

func TestLate401WithDeadSessionFailsNoRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		base := w.Server.Transport()
		var c *agrenting.Client
		var n atomic.Int64
		c = w.Client(agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/api/v1/agents" && n.Add(1) == 2 {
				// The session is renewed while this request is on its way, and both
				// are ended: it gets a late 401, and its replay the first one of the
				// new session.
				if err := sdktest.RenewSession(r.Context(), w.Server, c); err != nil {
					return nil, err
				}
				w.Server.RevokeSessions()
			}
			return base.RoundTrip(r)
		})))
		require.NoError(t, w.Call(c))
		require.NoError(t, w.Call(c))
		assert.Equal(t, 3, w.Exchanges())
		require.NoError(t, w.Call(c))
		assert.Equal(t, 3, w.Exchanges())
	})
}

// A source that has returned a dead key for minutes is not left alone for longer than one
// that has just begun to.
func TestSuccessorOfDeadKeyIsFoundWithinSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := sdktest.NewSource("k1")
		p := sdktest.NewPlatform("k1")
		valid := "k1"
		accept := func(secret string) {
			synctest.Wait() // the SDK may ask in the background
			p.Accept(secret)
			valid = secret
		}
		c := sdktest.ClientOver(t, sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			return sdktest.Verifying(valid, p).RoundTrip(r)
		}), src)
		call := func() error { _, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil); return err }
		require.NoError(t, call())
		for range 5 {
			accept("none")
			require.ErrorIs(t, call(), agrenting.ErrUnauthorized) // the source insists
			sdktest.Advance(time.Minute)
		}
		src.Replace(agrenting.APIKey("k2"))
		accept("k2")
		require.NoError(t, call())
		accept("none")
		require.ErrorIs(t, call(), agrenting.ErrUnauthorized)
		sdktest.Advance(time.Second)
		src.Replace(agrenting.APIKey("k3"))
		accept("k3")
		require.NoError(t, call())
	})
}
