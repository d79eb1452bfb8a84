package promagrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/promagrenting"
)

// world is a platform with an agent and its metrics.
type world struct {
	t        *testing.T
	platform *agrentingtest.Server
	agent    *agrentingtest.Agent
	key      agrenting.Credential
	keyID    string
	metrics  *promagrenting.Metrics
	registry *prometheus.Registry
}

func newWorld(t *testing.T, opts ...promagrenting.Option) *world {
	t.Helper()
	w := &world{
		t: t, platform: agrentingtest.NewServer(agrentingtest.InMemory(), agrentingtest.WithoutRateLimits()),
		metrics: promagrenting.New(opts...), registry: prometheus.NewPedanticRegistry(),
	}
	t.Cleanup(w.platform.Close)
	w.agent = w.platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key := w.platform.NewKey(w.agent.ID)
	w.key, w.keyID = agrenting.APIKey(key.Secret), key.ID
	require.NoError(t, w.registry.Register(w.metrics))
	return w
}

func (w *world) client(opts ...agrenting.Option) *agrenting.Client {
	w.t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.platform.URL), agrenting.WithTransport(w.platform.Transport()),
		agrenting.WithCredential(w.key), agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: time.Millisecond}), w.metrics.Option(),
	}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, c.Close()) })
	return c
}

const (
	tasks        = "/api/v1/tasks"
	authenticate = "/api/v1/auth/authenticate"
)

func (w *world) get(c *agrenting.Client) error {
	_, err := c.Do(w.t.Context(), http.MethodGet, tasks, nil, nil)
	return err
}

// values are the samples of the registry by name and labels, those of histograms by count.
func (w *world) values() map[string]float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	require.NoError(w.t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			name := strings.TrimPrefix(f.GetName(), "agrenting_")
			if len(labels) > 0 {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.GetCounter() != nil:
				out[name] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				out[name] = m.GetGauge().GetValue()
			case m.GetHistogram() != nil:
				out[name] = float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return out
}

// assertValues compares some of the values.
func (w *world) assertValues(want map[string]float64) {
	w.t.Helper()
	got := w.values()
	for name, v := range want {
		value, found := got[name]
		assert.True(w.t, found, "%s is missing in %v", name, got)
		assert.InDelta(w.t, v, value, 1e-6, name)
	}
}

func TestMetricsCountRequestsByTheirFinalStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.client(agrenting.WithSession())
		require.NoError(t, w.get(c))
		w.platform.Fault("GET "+tasks, agrentingtest.Status(http.StatusServiceUnavailable, ""))
		require.NoError(t, w.get(c))
		w.platform.RevokeSessions()
		require.NoError(t, w.get(c))
		_, err := c.Do(t.Context(), http.MethodGet, "/api/v1/nothing", nil, nil)
		require.Error(t, err)
		synctest.Wait()
		w.assertValues(map[string]float64{
			"requests_total{code=2xx}": 3, "requests_total{code=4xx}": 1, "request_duration_seconds": 4,
			"retries_total": 1, "resends_total{reason=renewed}": 1, "resends_total{reason=same}": 0,
			"internal_requests_total{code=2xx,purpose=exchange}": 2, "exchange_duration_seconds{result=success}": 2,
			"renewals_total{reason=first,result=renewed}": 1, "renewals_total{reason=rejected,result=renewed}": 1,
			"rejections_total": 1, "credential_state{state=ready}": 1, "requests_waiting": 0,
			"build_info{version=" + agrenting.Version + "}": 1,
		})
		assert.NotContains(t, w.values(), "key_age_seconds", "no store has the key")
		require.NoError(t, c.Close())
		assert.Zero(t, w.values()["credential_state{state=ready}"])
	})
}

func TestMetricsCountRequestsWithoutAResponse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") }
	c := w.client(agrenting.WithTransport(roundTrip(refused)), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1}))
	require.Error(t, w.get(c))
	w.assertValues(map[string]float64{"requests_total{code=error}": 1})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestMetricsCountFailedRenewalsAndWaitingRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		down := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			time.Sleep(time.Second) //nolint:forbidigo // virtual time
			return agrenting.Credential{}, errors.New("the vault is sealed")
		})
		c := w.client(agrenting.WithCredentialSource(down))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 3 {
			go func() { _, _ = c.Do(ctx, http.MethodGet, tasks, nil, nil) }()
		}
		synctest.Wait()
		w.assertValues(map[string]float64{"requests_waiting": 3, "credential_state{state=empty}": 1})
		time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // virtual time
		synctest.Wait()
		w.assertValues(map[string]float64{
			"requests_waiting": 3, "renewals_total{reason=first,result=failed}": 1, "renewal_duration_seconds{result=failed}": 1,
		})
		cancel()
		synctest.Wait()
		w.assertValues(map[string]float64{"requests_waiting": 0, "requests_total{code=error}": 3})
	})
}

func TestMetricsFollowAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.client(agrenting.WithStore(agrenting.MemoryStore()), agrenting.WithRotation(agrenting.RotationPolicy{
			Strategy: agrenting.Overlap, AgentID: w.agent.ID, Every: 30 * 24 * time.Hour,
		}))
		require.NoError(t, w.get(c))
		time.Sleep(10 * time.Hour) //nolint:forbidigo // virtual time
		w.assertValues(map[string]float64{"key_age_seconds": 36000, "key_overdue": 0, "store_failing": 0})
		assert.Greater(t, w.values()["key_due_timestamp_seconds"], float64(time.Now().Unix()))
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		w.assertValues(map[string]float64{"key_age_seconds": 0, "rotations_total{result=success,stage=done}": 1})

		w.platform.Fault("POST /api/v1/agents/{id}/credentials", agrentingtest.Status(http.StatusForbidden, agrentingtest.CodeForbidden).Always())
		_, err = c.Rotate(t.Context())
		require.Error(t, err)
		synctest.Wait()
		w.assertValues(map[string]float64{"rotations_total{result=failure,stage=issue}": 1})
	})
}

// brokenStore fails to save.
type brokenStore struct{ agrenting.Store }

func (brokenStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	return "", errors.New("the disk is full")
}

func TestMetricsCountStoreErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.client(agrenting.WithSession(agrenting.SessionPolicy{Store: brokenStore{agrenting.MemoryStore()}}))
		require.NoError(t, w.get(c))
		synctest.Wait()
		got := w.values()
		assert.Positive(t, got["store_errors_total{operation=save}"], "%v", got)
		assert.InDelta(t, 1, got["store_failing"], 0)
	})
}

func TestMetricsReportRateLimitOfProgram(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	limits := map[string]string{tasks: "12", authenticate: "3"}
	c := w.client(agrenting.WithSession(), agrenting.WithTransport(roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := w.platform.Transport().RoundTrip(r)
		if err == nil {
			resp.Header.Set("X-Ratelimit-Limit", "60")
			resp.Header.Set("X-Ratelimit-Remaining", limits[r.URL.Path])
		}
		return resp, err
	})))
	_, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.NotContains(t, w.values(), "rate_limit_remaining", "an exchange has its own limit")
	require.NoError(t, w.get(c))
	w.assertValues(map[string]float64{"rate_limit_remaining": 12, "rate_limit_requests": 60})
}

func TestMetricsReportARejectedCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.client(agrenting.WithStore(agrenting.MemoryStore()))
		w.platform.RevokeKey(w.keyID)
		require.ErrorIs(t, w.get(c), agrenting.ErrUnauthorized)
		w.assertValues(map[string]float64{"credential_state{state=rejected}": 1, "credential_state{state=ready}": 0})
	})
}

func TestSeveralClientsShareMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		require.NoError(t, w.get(w.client()))
	}
	w.assertValues(map[string]float64{"requests_total{code=2xx}": 3, "credential_state{state=ready}": 3})
}

func TestConstLabelsTellClientsApart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, promagrenting.WithConstLabels(prometheus.Labels{"client": "a"}))
	other := promagrenting.New(promagrenting.WithConstLabels(prometheus.Labels{"client": "b"}))
	require.NoError(t, w.registry.Register(other))
	require.NoError(t, w.get(w.client()))
	w.assertValues(map[string]float64{
		"requests_total{client=a,code=2xx}": 1, "credential_state{client=a,state=ready}": 1, "credential_state{client=b,state=ready}": 0,
	})
	require.Error(t, w.registry.Register(promagrenting.New(promagrenting.WithConstLabels(prometheus.Labels{"client": "a"}))))
	assert.True(t, w.registry.Unregister(other))
	assert.NotContains(t, w.values(), "credential_state{client=b,state=ready}")
}

func TestMetricsFollowTheNamingConventions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(agrenting.WithSession(), agrenting.WithStore(agrenting.MemoryStore()))
	require.NoError(t, w.get(c))
	problems, err := testutil.GatherAndLint(w.registry)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

// The documentation of the package lists the metrics like "agrenting_resends_total{reason}".
func TestDocumentationListsTheMetrics(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var listed []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(agrenting_\S+) `).FindAllSubmatch(text, -1) {
		listed = append(listed, string(m[1]))
	}
	descs := make(chan *prometheus.Desc, 100)
	promagrenting.New().Describe(descs)
	close(descs)
	var described []string
	parts := regexp.MustCompile(`fqName: "(\w+)".*variableLabels: {(.*)}}$`)
	for d := range descs {
		m := parts.FindStringSubmatch(d.String())
		require.NotNil(t, m, d.String())
		if m[2] != "" {
			m[1] += "{" + m[2] + "}"
		}
		described = append(described, m[1])
	}
	assert.ElementsMatch(t, described, listed)
}

// allowed are the values of labels. A label with any other value would have no bound.
var allowed = map[string][]string{
	"code":      {"1xx", "2xx", "3xx", "4xx", "5xx", "error"},
	"result":    {"success", "failure", "renewed", "confirmed", "failed"},
	"purpose":   {"exchange", "logout", "verify", "rotate"},
	"operation": {"load", "save", "watch", "adopt"},
	"state":     {"empty", "ready", "renewing", "waiting", "failing", "rejected", "closed"},
	"version":   {agrenting.Version},
}

func TestLabelsHaveFewValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.client(agrenting.WithSession())
		for i := range 50 {
			_, _ = c.Do(t.Context(), fmt.Sprint("M", i), fmt.Sprintf("/api/v1/tasks/%d", i), nil, nil)
			w.platform.RevokeSessions()
		}
		families, err := w.registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			for _, m := range f.GetMetric() {
				for _, l := range m.GetLabel() {
					if values, ok := allowed[l.GetName()]; ok {
						assert.Contains(t, values, l.GetValue(), f.GetName())
					} else {
						assert.Contains(t, []string{"reason", "stage"}, l.GetName(), f.GetName())
					}
					assert.False(t, slices.Contains([]string{w.key.Reveal(), w.platform.URL}, l.GetValue()))
				}
			}
		}
	})
}
