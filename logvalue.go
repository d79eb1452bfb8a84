package agrenting

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// attrs is the form of a value in logs and in JSON. What is not known is left out.
type attrs []slog.Attr

func (a *attrs) text(name, v string) {
	if v != "" {
		*a = append(*a, slog.String(name, v))
	}
}

func (a *attrs) time(name string, t time.Time) {
	if !t.IsZero() {
		*a = append(*a, slog.Time(name, t.UTC()))
	}
}

func (a *attrs) duration(name string, d time.Duration) {
	if d != 0 {
		a.text(name, d.Round(time.Millisecond).String())
	}
}

func (a *attrs) err(name string, err error) {
	if err != nil {
		a.text(name, errorText(err))
	}
}

func (a *attrs) kind(k Kind) {
	if k != 0 {
		a.text("kind", strings.ReplaceAll(k.String(), " ", "_"))
	}
}

func (a *attrs) group(name string, inner attrs) {
	if len(inner) > 0 {
		*a = append(*a, slog.Attr{Key: name, Value: slog.GroupValue(inner...)})
	}
}

// errorText is the text of an error that may quote another party.
func errorText(err error) string {
	return secret.Line(secret.WithoutQueries(secret.Bounded(err.Error())))
}

// object writes attributes as JSON, in their order.
func object(a attrs) ([]byte, error) {
	var b bytes.Buffer
	for i, at := range a {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(at.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(at.Value.Any())
		if at.Value.Kind() == slog.KindGroup {
			value, err = object(at.Value.Group())
		}
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	return append(append([]byte{'{'}, b.Bytes()...), '}'), nil
}

func (e Event) attrs() attrs {
	var a attrs
	a.text("type", string(e.Type))
	a.text("reason", e.Reason)
	if e.Generation > 0 {
		a = append(a, slog.Uint64("generation", e.Generation))
		a.kind(e.Kind)
		a.text("credential", e.Fingerprint)
	}
	a.text("previous", e.Previous)
	a.time("expires", e.Expires)
	a.duration("took", e.Took)
	a.err("error", e.Err)
	a.time("retry_at", e.RetryAt)
	return a
}

// LogValue implements [slog.LogValuer]. The time is that of the record.
func (e Event) LogValue() slog.Value { return slog.GroupValue(e.attrs()...) }

// MarshalJSON implements [json.Marshaler]. See [Status] for the form.
func (e Event) MarshalJSON() ([]byte, error) {
	var a attrs
	a.time("time", e.Time)
	return object(append(a, e.attrs()...))
}

func (s Status) attrs() attrs {
	a := attrs{slog.String("state", string(s.State))}
	a.text("source", s.Source)
	a.text("origin", s.Origin)
	a.text("agent_id", s.AgentID)
	a.text("environment", string(s.Environment))
	a.kind(s.Kind)
	a = append(a, slog.Uint64("generation", s.Generation))
	a.text("fingerprint", s.Fingerprint)
	a.time("expires", s.Expires)
	a.time("next_renewal", s.NextRenewal)
	a = append(a, slog.Bool("fetching", s.Fetching), slog.Int("waiters", s.Waiters), slog.Int("failures", s.Failures))
	a.err("last_error", s.LastError)
	a.time("retry_at", s.RetryAt)
	a.group("key", s.Key.attrs())
	a.text("store", s.Store)
	a.err("store_error", s.StoreError)
	a.duration("clock_skew", s.ClockSkew)
	a.group("rate", rateAttrs(s.Rate))
	return a
}

func rateAttrs(r Rate) attrs {
	if !r.Known {
		return nil
	}
	a := attrs{slog.Int("limit", r.Limit), slog.Int("remaining", r.Remaining)}
	a.duration("retry_after", r.RetryAfter)
	return a
}

// LogValue implements [slog.LogValuer].
func (s Status) LogValue() slog.Value { return slog.GroupValue(s.attrs()...) }

// MarshalJSON implements [json.Marshaler].
func (s Status) MarshalJSON() ([]byte, error) { return object(s.attrs()) }

func (k KeyStatus) attrs() attrs {
	if k.Fingerprint == "" {
		return nil
	}
	var a attrs
	a.text("fingerprint", k.Fingerprint)
	a = append(a, slog.Uint64("generation", k.Generation))
	a.time("created", k.Created)
	a.time("expires", k.Expires)
	a.duration("age", k.Age)
	a.time("due", k.Due)
	a = append(a, slog.Bool("overdue", k.Overdue), slog.Bool("rotating", k.Rotating))
	a.time("last_rotation", k.LastRotation)
	a = append(a, slog.Int("failures", k.Failures))
	a.err("last_error", k.LastError)
	a.time("retry_at", k.RetryAt)
	return a
}

// LogValue implements [slog.LogValuer].
func (k KeyStatus) LogValue() slog.Value { return slog.GroupValue(k.attrs()...) }

// MarshalJSON implements [json.Marshaler]. See [Status] for the form.
func (k KeyStatus) MarshalJSON() ([]byte, error) { return object(k.attrs()) }
