package agrenting

import (
	"context"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/gate"
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
			if err := renewSession(r.Context(), c); err != nil {
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

func TestWhoWaitsAtAGateLearnsOfTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate.Gate)
		g.Shut()
		k := newFixedCache("fixed", &preparedCredential{cred: APIKey("k1"), gate: g})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		left := make(chan error, 1)
		go func() { _, err := k.enter(ctx); left <- err }()
		synctest.Wait()
		require.NoError(t, k.close())
		g.Pass()
		require.ErrorIs(t, <-left, ErrClosed)
	})
}

func TestTheSameSecretOfAnotherKindIsAnotherCredential(t *testing.T) {
	t.Parallel()
	key, token := &preparedCredential{cred: APIKey(testKey)}, &preparedCredential{cred: UserToken(testKey)}
	assert.True(t, sameCredential(key, &preparedCredential{cred: APIKey(testKey)}))
	assert.False(t, sameCredential(key, token))
}

// Each renewal that helps ends the pause that those which did not have begun.
func TestARenewalThatHelpsEndsThePauseOfThoseThatDidNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("k1")
		p := newPlatform("k1")
		c := clientOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/api/v1/hirings/pending" { // whoever is refused, his credential is good
				return reply(http.StatusOK, "{}"), nil
			}
			return p.RoundTrip(r)
		}), src)
		call := func() error { _, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil); return err }
		require.NoError(t, call())
		for range 5 {
			p.accept("none")
			require.ErrorIs(t, call(), ErrUnauthorized) // the source insists
			advance(time.Minute)
		}
		src.replace(APIKey("k2"))
		p.accept("k2")
		require.NoError(t, call())
		p.accept("none")
		require.ErrorIs(t, call(), ErrUnauthorized)
		advance(time.Second)
		src.replace(APIKey("k3"))
		p.accept("k3")
		require.NoError(t, call(), "the pause is a second again")
	})
}
