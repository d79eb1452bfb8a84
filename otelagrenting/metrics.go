package otelagrenting

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/agrenting/agrenting-go"
)

// The attributes of metrics.
const (
	resultKey    = attribute.Key("agrenting.result")
	renewalKey   = attribute.Key("agrenting.reason")
	stageKey     = attribute.Key("agrenting.rotation.stage")
	operationKey = attribute.Key("agrenting.store.operation")
	stateKey     = attribute.Key("agrenting.credential.state")
)

// metrics are the instruments of one Option, and the clients that have it.
type metrics struct {
	meter                                                metric.Meter
	attrs                                                []attribute.KeyValue // of all measurements
	requestTime, renewalTime                             metric.Float64Histogram
	resends, retries, rejections, rotations, storeErrors metric.Int64Counter
	remaining                                            metric.Int64Gauge
	waiting, clients, overdue                            metric.Int64ObservableGauge
	keyAge                                               metric.Float64ObservableGauge

	// changing is held while observe is registered and unregistered, which waits for a
	// collection to end. So observe, which a collection calls, never waits for it.
	changing  sync.Mutex
	observing metric.Registration // nil while no client is open; guarded by changing

	mu   sync.Mutex
	open map[*client]struct{} // guarded by mu
}

// client is a client that has not been closed.
type client struct{ status func() agrenting.Status }

// made reports the error of an instrument. The API returns one that does nothing.
func made[T any](instrument T, err error) T {
	if err != nil {
		otel.Handle(err)
	}
	return instrument
}

func newMetrics(m metric.Meter, attrs []attribute.KeyValue) *metrics {
	counter := func(name, unit, help string) metric.Int64Counter {
		return made(m.Int64Counter("agrenting."+name, metric.WithUnit(unit), metric.WithDescription(help)))
	}
	times := func(name, help string) metric.Float64Histogram {
		return made(m.Float64Histogram("agrenting."+name, metric.WithUnit("s"), metric.WithDescription(help),
			metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)))
	}
	gauge := func(name, unit, help string) metric.Int64ObservableGauge {
		return made(m.Int64ObservableGauge("agrenting."+name, metric.WithUnit(unit), metric.WithDescription(help)))
	}
	return &metrics{
		meter: m, attrs: attrs, open: map[*client]struct{}{},
		requestTime: times("request.duration", "Time until the headers of the final response, with all waiting."),
		renewalTime: times("renewal.duration", "Time that renewals of the credential took."),
		resends:     counter("resends", "{resend}", "Requests sent again after a 401."),
		retries:     counter("retries", "{retry}", "Requests sent again after a transient failure."),
		rejections:  counter("rejections", "{rejection}", "Credentials in use that the platform refused."),
		rotations:   counter("rotations", "{rotation}", "Rotations of the API key that ended."),
		storeErrors: counter("store.errors", "{error}", "Failed uses of a store."),
		remaining: made(m.Int64Gauge("agrenting.rate_limit.remaining", metric.WithUnit("{request}"),
			metric.WithDescription("Requests left in the window of the rate limit."))),
		waiting: gauge("requests.waiting", "{request}", "Requests that wait for a credential."),
		clients: gauge("clients", "{client}", "Clients by the state of their credential."),
		overdue: gauge("key.overdue", "{key}", "API keys that should have been rotated."),
		keyAge: made(m.Float64ObservableGauge("agrenting.key.age", metric.WithUnit("s"),
			metric.WithDescription("Age of the API key in the store."))),
	}
}

// with are the attributes of a measurement.
func (m *metrics) with(attrs ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(slices.Concat(m.attrs, attrs)...)
}

func (m *metrics) request(ctx context.Context, r agrenting.RequestInfo, res agrenting.RequestResult) {
	attrs := []attribute.KeyValue{semconv.HTTPRequestMethodKey.String(method(r.Method))}
	if r.Purpose != "" {
		attrs = append(attrs, PurposeKey.String(r.Purpose))
	}
	switch {
	case res.Err != nil:
		attrs = append(attrs, semconv.ErrorType(res.Err))
	case res.StatusCode == 0:
		attrs = append(attrs, semconv.ErrorTypeOther)
	default:
		attrs = append(attrs, semconv.HTTPResponseStatusCode(res.StatusCode))
		if res.StatusCode >= http.StatusBadRequest {
			attrs = append(attrs, semconv.ErrorTypeKey.String(strconv.Itoa(res.StatusCode)))
		}
	}
	m.requestTime.Record(ctx, res.Duration.Seconds(), m.with(attrs...))
	if res.Rate.Known && r.Purpose == "" {
		m.remaining.Record(ctx, int64(res.Rate.Remaining), m.with())
	}
}

func (m *metrics) attempt(ctx context.Context, a agrenting.AttemptInfo) {
	switch a.Reason {
	case "first":
	case "retry":
		m.retries.Add(ctx, 1, m.with())
	default:
		m.resends.Add(ctx, 1, m.with(ReasonKey.String(a.Reason)))
	}
}

func (m *metrics) event(e agrenting.Event) {
	ctx := context.Background() // events belong to no request
	renewed := func(result string) {
		if e.Took > 0 { // the source was asked
			m.renewalTime.Record(ctx, e.Took.Seconds(), m.with(resultKey.String(result), renewalKey.String(e.Reason)))
		}
	}
	switch e.Type {
	case agrenting.EventRenewed:
		renewed("renewed")
	case agrenting.EventConfirmed:
		renewed("confirmed")
	case agrenting.EventRenewalFailed:
		renewed("failed")
	case agrenting.EventRejected:
		m.rejections.Add(ctx, 1, m.with())
	case agrenting.EventRotated:
		m.rotations.Add(ctx, 1, m.with(stageKey.String("done"), resultKey.String("success")))
	case agrenting.EventRotationFailed:
		m.rotations.Add(ctx, 1, m.with(stageKey.String(e.Reason), resultKey.String("failure")))
	case agrenting.EventStoreFailed:
		m.storeErrors.Add(ctx, 1, m.with(operationKey.String(e.Reason)))
	default: // the gauges show it
	}
}

// start adds a client to the gauges.
func (m *metrics) start(status func() agrenting.Status) (stop func()) {
	c := &client{status}
	m.changing.Lock()
	defer m.changing.Unlock()
	m.mu.Lock()
	m.open[c] = struct{}{}
	m.mu.Unlock()
	if m.observing == nil {
		m.observing = made(m.meter.RegisterCallback(m.observe, m.waiting, m.clients, m.overdue, m.keyAge))
	}
	return func() { m.stop(c) }
}

func (m *metrics) stop(c *client) {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.mu.Lock()
	delete(m.open, c)
	last := len(m.open) == 0
	m.mu.Unlock()
	if !last || m.observing == nil {
		return
	}
	if err := m.observing.Unregister(); err != nil {
		otel.Handle(err)
	}
	m.observing = nil
}

// observe reads the gauges from the clients. It makes no request.
func (m *metrics) observe(_ context.Context, o metric.Observer) error {
	m.mu.Lock()
	var statuses []func() agrenting.Status
	for c := range m.open {
		statuses = append(statuses, c.status)
	}
	m.mu.Unlock()
	var waiting, overdue int64
	var age time.Duration
	hasKey := false
	clients := map[agrenting.State]int64{}
	for _, status := range statuses {
		s := status()
		clients[s.State]++
		waiting += int64(s.Waiters)
		if s.Key.Overdue {
			overdue++
		}
		if s.Key.Fingerprint != "" {
			hasKey, age = true, max(age, s.Key.Age)
		}
	}
	for state, n := range clients {
		o.ObserveInt64(m.clients, n, m.with(stateKey.String(string(state))))
	}
	o.ObserveInt64(m.waiting, waiting, m.with())
	o.ObserveInt64(m.overdue, overdue, m.with())
	if hasKey {
		o.ObserveFloat64(m.keyAge, age.Seconds(), m.with())
	}
	return nil
}
