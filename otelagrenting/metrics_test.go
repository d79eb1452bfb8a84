package otelagrenting_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/otelagrenting"
)

// assertValues compares some of the measurements.
func (w *world) assertValues(want map[string]float64) {
	w.t.Helper()

	got := w.values()
	for name, v := range want {
		value, found := got[name]
		assert.True(w.t, found, "%s is missing in %v", name, got)
		assert.InDelta(w.t, v, value, 1e-6, name)
	}
}

func TestMetricsCountRequestsResendsAndRenewals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.platform.Fault("POST "+authenticate, agrentingtest.Delay(10*time.Millisecond).Always())
		get := func() error {
			_, err := w.client.Do(t.Context(), http.MethodGet, tasks, nil, nil)
			return err
		}
		require.NoError(t, get())
		w.platform.Fault("GET "+tasks, agrentingtest.Status(http.StatusServiceUnavailable, ""))
		require.NoError(t, get())
		w.platform.RevokeSessions()
		require.NoError(t, get())
		_, err := w.client.Do(t.Context(), http.MethodGet, "/api/v1/nothing", nil, nil)
		require.Error(t, err)
		synctest.Wait()
		w.assertValues(map[string]float64{
			"request.duration{http.request.method=GET,http.response.status_code=200}":                             3,
			"request.duration{error.type=404,http.request.method=GET,http.response.status_code=404}":              1,
			"request.duration{agrenting.purpose=exchange,http.request.method=POST,http.response.status_code=200}": 2,
			"retries": 1, "resends{agrenting.attempt.reason=renewed}": 1, "rejections": 1,
			"renewal.duration{agrenting.reason=first,agrenting.result=renewed}":    1,
			"renewal.duration{agrenting.reason=rejected,agrenting.result=renewed}": 1,
			"requests.waiting": 0, "key.overdue": 0, "clients{agrenting.credential.state=ready}": 1,
		})
	})
}

func TestMetricsFollowAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.open(otelagrenting.Option(w.settings...), agrenting.WithStore(agrenting.MemoryStore()),
			agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.Overlap, AgentID: w.agent}))
		require.NoError(t, w.client.Close())
		_, err := c.Do(t.Context(), http.MethodGet, tasks, nil, nil)
		require.NoError(t, err)
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		w.assertValues(map[string]float64{"key.age": 3600})
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		w.assertValues(map[string]float64{"rotations{agrenting.result=success,agrenting.rotation.stage=done}": 1})
	})
}

func TestGaugesDescribeAllClientsOfAnOption(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	both := otelagrenting.Option(append(w.settings, otelagrenting.WithAttributes(attribute.String("client", "b")))...)
	first, second := w.open(both), w.open(both)
	w.assertValues(map[string]float64{
		"clients{agrenting.credential.state=empty}": 1, "clients{agrenting.credential.state=empty,client=b}": 2,
	})
	require.NoError(t, first.Close())
	w.assertValues(map[string]float64{"clients{agrenting.credential.state=empty,client=b}": 1})
	require.NoError(t, second.Close())
	for name := range w.values() {
		assert.NotContains(t, name, "client=b", "the gauges end with the last client")
	}
	third := w.open(both)
	w.assertValues(map[string]float64{"clients{agrenting.credential.state=empty,client=b}": 1})
	require.NoError(t, third.Close())
}

func TestMetricsHaveFewAttributes(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	_, _ = w.client.Do(t.Context(), "BREW", "/api/v1/tasks/17", nil, nil)
	for name := range w.values() {
		assert.NotContains(t, name, "BREW")
		assert.NotContains(t, name, "tasks")
		assert.NotContains(t, name, strings.TrimPrefix(w.platform.URL, "http://"))
	}
}

func TestClientsOpenAndCloseDuringCollections(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	option := otelagrenting.Option(w.settings...)
	ctx, cancel := context.WithCancel(t.Context())
	collecting := make(chan struct{})
	go func() {
		defer close(collecting)
		for ctx.Err() == nil {
			var all metricdata.ResourceMetrics
			assert.NoError(t, w.reader.Collect(context.WithoutCancel(ctx), &all))
		}
	}()
	var open sync.WaitGroup
	for range 2 {
		open.Go(func() {
			for range 500 {
				c, err := agrenting.New(option, agrenting.WithoutEnvironment(), agrenting.WithAnonymous(), agrenting.WithBaseURL(w.platform.URL))
				if assert.NoError(t, err) {
					assert.NoError(t, c.Close())
				}
			}
		})
	}
	open.Wait()
	cancel()
	<-collecting
	w.assertValues(map[string]float64{"clients{agrenting.credential.state=empty}": 1})
}

func TestRenewalDurationOmitsInstantRenewals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		_, err := w.client.Credential(t.Context())
		require.NoError(t, err)
		synctest.Wait()
		for name := range w.values() {
			assert.NotContains(t, name, "renewal.duration")
		}
	})
}

func TestRateLimitCountsOnlyProgramRequests(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	limits := map[string]string{tasks: "12", authenticate: "3"}
	c := w.open(otelagrenting.Option(w.settings...), agrenting.WithTransport(roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := w.platform.Transport().RoundTrip(r)
		if err == nil {
			resp.Header.Set("X-Ratelimit-Limit", "60")
			resp.Header.Set("X-Ratelimit-Remaining", limits[r.URL.Path])
		}
		return resp, err
	})))
	_, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.NotContains(t, w.values(), "rate_limit.remaining", "an exchange has its own limit")
	_, err = c.Do(t.Context(), http.MethodGet, tasks, nil, nil)
	require.NoError(t, err)
	w.assertValues(map[string]float64{"rate_limit.remaining": 12})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
