package agrenting

import (
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestAKeyThatDiesUnderTheReplayTooFailsNobody(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	mine, err := FileStore(path)
	require.NoError(t, err)
	theirs, err := FileStore(path)
	require.NoError(t, err)
	other := w.client(theirs, RotationPolicy{Strategy: InPlace, Every: -1})
	var n atomic.Int64
	base := w.srv.Transport()
	c := w.client(mine, RotationPolicy{Strategy: InPlace, Every: -1}, WithTransport(tripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/v1/tasks" && n.Load() > 0 && n.Load() < 3 {
			n.Add(1)
			if _, err := other.Rotate(r.Context()); err != nil {
				return nil, err
			}
		}
		return base.RoundTrip(r)
	})))
	require.NoError(t, w.call(c))
	n.Store(1) // another process rotates under the request, and under its replay
	require.NoError(t, w.call(c))
	require.NoError(t, w.call(c))
}

func TestALate401WhoseReplayMeetsADeadSessionFailsNobody(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t)
	base := w.srv.Transport()
	var c *Client
	var n atomic.Int64
	c = w.client(WithTransport(tripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/v1/agents" && n.Add(1) == 2 {
			// The session is renewed while this request is on its way, and both
			// are ended: it gets a late 401, and its replay the first one of the
			// new session.
			if _, err := c.core.creds.engine.Renew(r.Context()); err != nil {
				return nil, err
			}
			w.srv.RevokeSessions()
		}
		return base.RoundTrip(r)
	})))
	require.NoError(t, w.call(c))
	require.NoError(t, w.call(c))
	require.NoError(t, w.call(c))
}
