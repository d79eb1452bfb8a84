package agrentingtest_test

import (
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// outcomes sends 200 requests in virtual time and returns what became of each.
func outcomes(t *testing.T, opts ...agrentingtest.Option) (out []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, append(opts, agrentingtest.WithoutRateLimits())...)
		w.transport.DisableKeepAlives = true // nothing is resent
		for range 200 {
			a, err := w.asKey().try(http.MethodGet, tasksPath, "")
			out = append(out, fmt.Sprintf("%d %t %q %q", a.status, err != nil, a.header.Get("Retry-After"), a.header.Get("Content-Type")))
		}
	})
	return out
}

func TestChaosHasTheDocumentedMix(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const requests = 2000
		w := newWorld(t, agrentingtest.WithoutRateLimits(), agrentingtest.WithChaos(0.5), agrentingtest.WithSeed(3))
		w.transport.DisableKeepAlives = true
		keys := "/api/v1/agents/" + w.agent.ID + "/credentials"
		slow, cut, hints := 0, 0, 0
		for range requests {
			at := time.Now()
			a, err := w.asKey().try(http.MethodPost, keys, "")
			if took := time.Since(at); took != 0 {
				slow++
				assert.GreaterOrEqual(t, took, 100*time.Millisecond)
				assert.LessOrEqual(t, took, 2*time.Second)
			}
			if err != nil && a.status != 0 {
				cut++
				assert.Less(t, len(a.raw), 64)
			}
			if a.header.Get("Retry-After") == "1" {
				hints++
			}
		}
		r := w.Report()
		require.NotNil(t, r.Chaos)
		met := r.Chaos.Faults
		assert.InDelta(t, 0.5, float64(r.Chaos.Requests)/requests, 0.04)
		assert.EqualValues(t, r.Chaos.Requests, r.Stats.Faults)
		assert.Equal(t, 0.5, r.Chaos.Share) //nolint:testifylint // it is the same number
		assert.EqualValues(t, 3, r.Chaos.Seed)
		for name, percent := range map[string]float64{
			"stray_401": 20, "page_502": 15, "status_503": 15, "page_504": 10,
			"drop_before": 10, "drop_after": 10, "slow": 10, "reset_mid_body": 10,
		} {
			assert.InDelta(t, percent, 100*float64(met[name])/float64(r.Chaos.Requests), 3.5, name)
		}
		assert.Len(t, met, 8)
		served := requests - met["stray_401"] - met["page_502"] - met["status_503"] - met["drop_before"]
		assert.EqualValues(t, served, r.Stats.KeysCreated)
		assert.Equal(t, []int{met["slow"], met["reset_mid_body"], met["status_503"]}, []int{slow, cut, hints})
		assert.Equal(t, map[string]int{
			"201": served - met["page_504"] - met["drop_after"], "401": met["stray_401"], "502": met["page_502"],
			"503": met["status_503"], "504": met["page_504"], "none": met["drop_before"] + met["drop_after"],
		}, r.Requests[0].Responses)
	})
}

func TestChaosDependsOnlyOnSeed(t *testing.T) {
	t.Parallel()
	seed, chaos := agrentingtest.WithSeed, agrentingtest.WithChaos
	first := outcomes(t, chaos(0.3), seed(1))
	assert.Equal(t, first, outcomes(t, chaos(0.3), seed(1)))
	assert.NotEqual(t, first, outcomes(t, chaos(0.3), seed(2)))
	assert.NotEqual(t, first, outcomes(t, seed(1)))
	kinds := slices.Collect(maps.Keys(count(first)))
	assert.Greater(t, len(kinds), 4, "%q", kinds)
}

func count(all []string) map[string]int {
	n := map[string]int{}
	for _, s := range all {
		n[s]++
	}
	return n
}

func TestScriptedFaultsComeBeforeChaos(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Chaos(1)
	w.Fault("*", agrentingtest.Status(418, "").Times(20))
	for range 20 {
		assert.Equal(t, 418, w.get(health).status)
	}
	assert.Zero(t, w.Report().Chaos.Requests)
	w.ClearFaults()
	_, _ = w.try(http.MethodGet, health, "")
	assert.NotZero(t, w.Report().Chaos.Requests, "ClearFaults does not end it")
	w.Chaos(0)
	assert.Equal(t, 200, w.get(health).status)
	assert.Nil(t, w.Report().Chaos)
}

func TestChaosOfNoSharePanics(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, share := range []float64{-0.1, 1.1, math.NaN()} {
		assert.PanicsWithValue(t, fmt.Sprintf("agrentingtest: WithChaos(%v): want a number from 0 to 1", share), func() { agrentingtest.WithChaos(share) })
		assert.Panics(t, func() { s.Chaos(share) })
	}
}

// TestClientLosesNoRepeatableRequestToChaos runs the SDK with its defaults, except for
// what the name says.
func TestClientLosesNoRepeatableRequestToChaos(t *testing.T) {
	t.Parallel()
	session, store := agrenting.WithSession, func() agrenting.Option { return agrenting.WithStore(agrenting.MemoryStore()) }
	for name, c := range map[string]struct {
		opts func() []agrenting.Option
		ttl  time.Duration
	}{
		"session":        {func() []agrenting.Option { return []agrenting.Option{session()} }, 20 * time.Hour},
		"short sessions": {func() []agrenting.Option { return []agrenting.Option{session()} }, time.Minute},
		"key in a store": {func() []agrenting.Option { return []agrenting.Option{store()} }, time.Hour},
		"rotation": {func() []agrenting.Option {
			return []agrenting.Option{store(), session(), agrenting.WithRotation(agrenting.RotationPolicy{Every: time.Hour})}
		}, 20 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const calls = 300
				w := newWorld(t, agrentingtest.WithChaos(0.05), agrentingtest.WithSeed(11), agrentingtest.WithSessionTTL(c.ttl),
					agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1_000_000}))
				provider := w.NewAgent(w.user, agrentingtest.AgentConfig{Capabilities: []string{"test"}})
				client := newSDKClient(t, w, c.opts()...)
				defer client.Close()
				for i := range calls {
					method, body := http.MethodGet, any(nil)
					if i%3 == 0 {
						method, body = http.MethodPost, map[string]string{"agent_id": provider.ID, "task_type": "test"}
					}
					var task any
					_, err := client.Do(t.Context(), method, tasksPath, body, &task)
					require.NoError(t, err, "call %d", i)
					advance(30 * time.Second)
				}
				client.Close()
				r := w.Report()
				assert.Greater(t, r.Chaos.Requests, calls/40)
				w.Chaos(0)
				assert.Equal(t, calls/3, tasksOf(w), "each task is made once")
				assert.Empty(t, r.Misplaced)
				assert.Equal(t, name == "rotation", r.Stats.Rotations > 0)
			})
		})
	}
}

func newSDKClient(t *testing.T, w *world, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	client, err := agrenting.New(append(opts, agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.URL),
		agrenting.WithTransport(w.Transport()), agrenting.WithCredential(agrenting.APIKey(w.key.Secret)))...)
	require.NoError(t, err)
	return client
}

func TestLostResponseOfAnUnkeyedPOSTIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls = 200
		w := newWorld(t, agrentingtest.WithChaos(0.3), agrentingtest.WithSeed(5), agrentingtest.WithoutRateLimits())
		provider := w.NewAgent(w.user, agrentingtest.AgentConfig{Capabilities: []string{"test"}})
		client := newSDKClient(t, w, agrenting.WithSession())
		defer client.Close()
		made := 0
		for range calls {
			body := strings.NewReader(`{"task_type":"test","agent_id":"` + provider.ID + `"}`)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+tasksPath, body)
			require.NoError(t, err)
			resp, err := client.HTTPClient().Do(req)
			if err != nil {
				continue
			}
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if err == nil && resp.StatusCode == http.StatusCreated {
				made++
			}
		}
		w.Chaos(0)
		assert.Less(t, made, calls, "some are reported")
		assert.Greater(t, made, calls/2)
		assert.GreaterOrEqual(t, tasksOf(w), made)
		assert.LessOrEqual(t, tasksOf(w), calls, "none is repeated")
	})
}

// tasksOf returns how many tasks the agent has.
func tasksOf(w *world) int {
	return w.asToken().and("X-Agent-ID", w.agent.ID).get(tasksPath + "?limit=1").env.Meta.Pagination.Total
}
