package promagrenting

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/agrenting/agrenting-go"
)

// gauges describe what is read from the clients when metrics are collected.
type gauges struct {
	state, waiting, expiry, remaining, limit, keyAge, keyDue, keyOverdue, storeFailing, build *prometheus.Desc
}

func newGauges(labels prometheus.Labels) gauges {
	desc := func(name, help string, variable ...string) *prometheus.Desc {
		return prometheus.NewDesc("agrenting_"+name, help, variable, labels)
	}
	return gauges{
		state:        desc("credential_state", "Clients by the state of their credential.", "state"),
		waiting:      desc("requests_waiting", "Requests that wait for a credential."),
		expiry:       desc("credential_expiry_timestamp_seconds", "When the credential in use expires; absent if it does not or if that is unknown."),
		remaining:    desc("rate_limit_remaining", "Requests left in the window of the rate limit, by the last response that says so."),
		limit:        desc("rate_limit_requests", "Requests per window of the rate limit, by the last response that says so."),
		keyAge:       desc("key_age_seconds", "Age of the API key in the store."),
		keyDue:       desc("key_due_timestamp_seconds", "When the API key in the store should be rotated; absent without a schedule."),
		keyOverdue:   desc("key_overdue", "Clients whose API key should have been rotated."),
		storeFailing: desc("store_failing", "Clients whose last use of a store failed."),
		build:        desc("build_info", "The version of the SDK.", "version"),
	}
}

func (g *gauges) all() []*prometheus.Desc {
	return []*prometheus.Desc{
		g.state, g.waiting, g.expiry, g.remaining, g.limit, g.keyAge, g.keyDue, g.keyOverdue, g.storeFailing, g.build,
	}
}

// states are exported also if no client is in them, so that alerts find them.
var states = []agrenting.State{
	agrenting.StateEmpty, agrenting.StateReady, agrenting.StateRenewing, agrenting.StateWaiting, agrenting.StateFailing, agrenting.StateRejected,
}

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.counted {
		c.Describe(ch)
	}
	for _, d := range m.gauges.all() {
		ch <- d
	}
}

// Collect implements [prometheus.Collector]. It makes no request.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.counted {
		c.Collect(ch)
	}
	send := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := summarize(m.statuses())
	g := &m.gauges
	for state, n := range s.states {
		send(g.state, n, string(state))
	}
	send(g.waiting, s.waiting)
	send(g.storeFailing, s.storeFailing)
	send(g.keyOverdue, s.overdue)
	if s.hasKey {
		send(g.keyAge, s.keyAge.Seconds())
	}
	if !s.due.IsZero() {
		send(g.keyDue, seconds(s.due))
	}
	if !s.expiry.IsZero() {
		send(g.expiry, seconds(s.expiry))
	}
	if r := m.rate.Load(); r != nil {
		send(g.remaining, float64(r.Remaining))
		send(g.limit, float64(r.Limit))
	}
	send(g.build, 1, agrenting.Version)
}

func (m *Metrics) statuses() []agrenting.Status {
	m.mu.Lock()
	open := make([]*client, 0, len(m.clients))
	for c := range m.clients {
		open = append(open, c)
	}
	m.mu.Unlock()
	out := make([]agrenting.Status, len(open))
	for i, c := range open {
		out[i] = c.status()
	}
	return out
}

// summary is the state of all clients.
type summary struct {
	states                         map[agrenting.State]float64
	waiting, storeFailing, overdue float64
	hasKey                         bool
	keyAge                         time.Duration // of the oldest key
	due, expiry                    time.Time     // the earliest
}

func summarize(all []agrenting.Status) summary {
	s := summary{states: map[agrenting.State]float64{}}
	for _, state := range states {
		s.states[state] = 0
	}
	for i := range all {
		st := &all[i]
		s.states[st.State]++
		s.waiting += float64(st.Waiters)
		if st.StoreError != nil {
			s.storeFailing++
		}
		if st.Key.Overdue {
			s.overdue++
		}
		if st.Key.Fingerprint != "" {
			s.hasKey, s.keyAge = true, max(s.keyAge, st.Key.Age)
		}
		s.due, s.expiry = earliest(s.due, st.Key.Due), earliest(s.expiry, st.Expires)
	}
	return s
}

// earliest returns the earlier of two times; a zero time does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
