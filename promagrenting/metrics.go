package promagrenting

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agrenting/agrenting-go"
)

// Metrics is a [prometheus.Collector] of the clients that were given its [Metrics.Option]. It
// is safe for concurrent use. It has no goroutine, so it needs no Close: register it, and
// unregister it if it should no longer be exported.
type Metrics struct {
	requests, resends, internal, renewals, rotations, storeErrors *prometheus.CounterVec
	retries, rejections                                           prometheus.Counter
	requestTime                                                   prometheus.Observer
	renewalTime, exchangeTime                                     *prometheus.HistogramVec

	counted []prometheus.Collector // all of the above
	gauges  gauges
	rate    atomic.Pointer[agrenting.Rate] // of the last response to the program that had one

	mu      sync.Mutex
	clients map[*client]struct{}
}

var _ prometheus.Collector = (*Metrics)(nil)

// client is a client that has not been closed.
type client struct{ status func() agrenting.Status }

// An Option configures [New].
type Option func(*config)

type config struct {
	labels  prometheus.Labels
	buckets []float64
}

// WithConstLabels adds labels to all metrics, for example {"client": "billing"}. Metrics with
// different values can be in the same registry. The default is none.
func WithConstLabels(labels prometheus.Labels) Option {
	return func(c *config) { c.labels = labels }
}

// WithBuckets sets the upper bounds of the histograms' buckets in seconds, for example 0.1,
// 1, 10. The default is [prometheus.DefBuckets], from 5 ms to 10 s.
func WithBuckets(seconds ...float64) Option {
	return func(c *config) { c.buckets = seconds }
}

// New returns metrics without clients.
func New(opts ...Option) *Metrics {
	cfg := config{buckets: prometheus.DefBuckets}
	for _, opt := range opts {
		opt(&cfg)
	}
	m := &Metrics{clients: map[*client]struct{}{}, gauges: newGauges(cfg.labels)}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "agrenting_" + name, Help: help, ConstLabels: cfg.labels}, labels)
		m.counted = append(m.counted, v)
		return v
	}
	times := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agrenting_" + name, Help: help, ConstLabels: cfg.labels, Buckets: cfg.buckets,
		}, labels)
		m.counted = append(m.counted, v)
		return v
	}
	m.requests = counters("requests_total", "Requests of the program by the class of their final status, or error without a response.", "code")
	m.requestTime = times("request_duration_seconds", "Time until the headers of the final response, with all waiting.").WithLabelValues()
	m.retries = counters("retries_total", "Requests sent again after a transient failure.").WithLabelValues()
	m.resends = counters("resends_total", "Requests sent again after a 401, by the credential used: same, renewed, or switched.", "reason")
	m.internal = counters("internal_requests_total", "Requests that the SDK made itself, by purpose and class of their status.", "purpose", "code")
	m.renewals = counters("renewals_total", "Renewals of the credential by result and by the reason for which the source was asked.", "result", "reason")
	m.renewalTime = times("renewal_duration_seconds", "Time that renewals took.", "result")
	m.exchangeTime = times("exchange_duration_seconds", "Time that exchanges of an API key for a session took.", "result")
	m.rejections = counters("rejections_total", "Credentials in use that the platform refused.").WithLabelValues()
	m.rotations = counters("rotations_total", "Rotations of the API key that ended, by result and by the stage that failed.", "stage", "result")
	m.storeErrors = counters("store_errors_total", "Failed uses of a store by operation.", "operation")
	for _, reason := range []string{"same", "renewed", "switched"} {
		m.resends.WithLabelValues(reason)
	}
	return m
}

// Option returns the option that adds a client to the metrics. Give it to
// [agrenting.New] or [agrenting.NewTransport]. The client is removed from the gauges when it
// is closed.
func (m *Metrics) Option() agrenting.Option {
	return agrenting.WithInstrumentation(agrenting.Instrumentation{
		Request: m.request, Attempt: m.attempt, Event: m.event, Start: m.start,
	})
}

func (m *Metrics) start(status func() agrenting.Status) (stop func()) {
	c := &client{status}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[c] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.clients, c)
	}
}

func (m *Metrics) request(_ context.Context, r agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
	return nil, func(res agrenting.RequestResult) { //nolint:nilnil // it adds nothing to the context
		code := class(res.StatusCode)
		if r.Purpose == "" {
			if res.Rate.Known { // requests of the SDK have other limits
				m.rate.Store(&res.Rate)
			}
			m.requests.WithLabelValues(code).Inc()
			m.requestTime.Observe(res.Duration.Seconds())
			return
		}
		m.internal.WithLabelValues(r.Purpose, code).Inc()
		if r.Purpose == "exchange" {
			m.exchangeTime.WithLabelValues(result(code == "2xx")).Observe(res.Duration.Seconds())
		}
	}
}

func (m *Metrics) attempt(_ context.Context, a agrenting.AttemptInfo) (context.Context, func(agrenting.AttemptResult)) {
	switch a.Reason {
	case "first":
	case "retry":
		m.retries.Inc()
	default:
		m.resends.WithLabelValues(a.Reason).Inc()
	}
	return nil, nil //nolint:nilnil // it adds nothing to the context
}

func (m *Metrics) event(e agrenting.Event) {
	switch e.Type {
	case agrenting.EventRenewed:
		m.renewed("renewed", e)
	case agrenting.EventConfirmed:
		m.renewed("confirmed", e)
	case agrenting.EventRenewalFailed:
		m.renewed("failed", e)
	case agrenting.EventRejected:
		m.rejections.Inc()
	case agrenting.EventRotated:
		m.rotations.WithLabelValues("done", result(true)).Inc()
	case agrenting.EventRotationFailed:
		m.rotations.WithLabelValues(e.Reason, result(false)).Inc()
	case agrenting.EventStoreFailed:
		m.storeErrors.WithLabelValues(e.Reason).Inc()
	default: // the gauges show it
	}
}

func (m *Metrics) renewed(result string, e agrenting.Event) {
	m.renewals.WithLabelValues(result, e.Reason).Inc()
	if e.Took > 0 { // the source was asked
		m.renewalTime.WithLabelValues(result).Observe(e.Took.Seconds())
	}
}

// class is the class of a status, for example 2xx.
func class(status int) string {
	if status < 100 || status > 599 {
		return "error"
	}
	return fmt.Sprintf("%dxx", status/100)
}

func result(ok bool) string {
	if ok {
		return "success"
	}
	return "failure"
}
