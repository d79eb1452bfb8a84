package agrenting

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestARouteThatAlwaysRefusesHidesNoDeadSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		w.srv.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusUnauthorized, "").Always())
		c := w.client()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
			advance(50 * time.Millisecond)
		}
		bought := w.bought()
		assert.LessOrEqual(t, bought, 6, "refusals that renewal does not mend exhaust nothing")
		for range 5 {
			w.srv.RevokeSessions()
			require.NoError(t, w.call(c), "this one it does mend")
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
		}
		assert.LessOrEqual(t, w.bought(), bought+10)
	})
}

func TestASessionThatIsEndedUnderItsFirstRequestIsRenewedOnceMore(t *testing.T) {
	t.Parallel()
	w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
	base := w.srv.Transport()
	var n atomic.Int64
	c := w.client(WithTransport(tripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/api/v1/agents" && n.Add(1) <= 3 {
			w.srv.RevokeSessions()
		}
		return base.RoundTrip(r)
	})))
	require.NoError(t, w.call(c))
	assert.Equal(t, 4, w.bought())
}

// A platform whose answers to the probe are worth nothing must not make the SDK
// buy sessions without end.
func TestAProbeThatLiesIsNotBelievedForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newSessionWorld(t, agrentingtest.WithoutRateLimits())
		refuse := agrentingtest.Status(http.StatusUnauthorized, "").Always()
		w.srv.Fault("GET /api/v1/tasks", refuse)
		w.srv.Fault("GET /api/v1/hirings/pending", refuse)
		c := w.client()
		for range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
			require.ErrorIs(t, err, ErrUnauthorized)
			advance(50 * time.Millisecond)
		}
		assert.LessOrEqual(t, w.bought(), 10)
		require.NoError(t, w.call(c))
	})
}

func TestAProbeServesAllWhoAskMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, answer := 0, alive
		p := &prober{turn: make(chan struct{}, 1), ask: func(ctx context.Context, _ Credential) verdict {
			asked++
			select {
			case <-time.After(time.Second):
				return answer
			case <-ctx.Done():
				return inDoubt
			}
		}}
		p.turn <- struct{}{}
		herd := func(want verdict) {
			t.Helper()
			go p.judge(t.Context(), APIKey("k1"))
			synctest.Wait()
			advance(time.Millisecond)
			for range 10 {
				go func() { assert.Equal(t, want, p.judge(t.Context(), APIKey("k1"))) }()
			}
			letPass(time.Minute)
		}
		herd(alive)
		assert.Equal(t, 2, asked, "what was asked before the 401 does not explain it, one more answer does for all")
		answer = dead
		herd(dead)
		assert.Equal(t, 3, asked, "what is dead stays so")
		assert.Equal(t, dead, p.judge(t.Context(), APIKey("k1")))
		assert.Equal(t, 3, asked)
		assert.Equal(t, dead, p.judge(t.Context(), APIKey("k2")), "another one is asked about")
		assert.Equal(t, 4, asked)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.Equal(t, inDoubt, p.judge(ctx, APIKey("k3")))
		assert.Equal(t, dead, p.judge(t.Context(), APIKey("k3")), "who gave up has found nothing out")
	})
}

func TestWhoWaitsForAProbeLeavesWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &prober{turn: make(chan struct{}, 1)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		assert.Equal(t, inDoubt, p.judge(ctx, APIKey("k1")))
	})
}

func TestWhoGivesUpWhileAskingIfACredentialIsDeadTellsNobodyThatItLives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &prober{turn: make(chan struct{}, 1)}
		p.turn <- struct{}{}
		first := make(chan struct{})
		n := 0
		p.ask = func(ctx context.Context, _ Credential) verdict {
			n++
			switch n {
			case 1:
				<-first
				return inDoubt
			case 2:
				<-ctx.Done()
				return inDoubt
			default:
				return dead
			}
		}
		go p.judge(t.Context(), APIKey("another"))
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		go p.judge(ctx, APIKey("dead"))
		synctest.Wait()
		said := make(chan verdict, 1)
		go func() { said <- p.judge(t.Context(), APIKey("dead")) }()
		synctest.Wait()
		advance(time.Second)
		close(first)
		synctest.Wait()
		cancel(errors.New("no time"))
		assert.Equal(t, dead, <-said)
	})
}
