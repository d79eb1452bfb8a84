package renew

import "time"

// planner decides when a generation ends and when it is renewed. Its methods are called
// under the engine's lock.
type planner[T any] struct {
	cfg  *Config[T]
	skew time.Duration // the issuer's clock minus the local clock
}

// generationOf converts a grant to the local clock and decides when to renew it. If like
// has the same number, the value was fetched again and keeps its lead. Otherwise, each
// recheck would find a shorter life and renew later.
func (p *planner[T]) generationOf(g Grant[T], like Generation[T], began, now time.Time) *Generation[T] {
	l := &Generation[T]{Value: g.Value, Number: like.Number, Obtained: now, Reason: like.Reason, ends: g.Expires}
	if !g.Issued.IsZero() {
		p.skew = SkewOf(g.Issued, began, now)
	}
	if g.Recheck > 0 {
		l.recheck, l.recheckAt = g.Recheck, now.Add(g.Recheck)
	}
	if g.Expires.IsZero() {
		return l
	}
	life := g.Expires.Add(-p.skew).Round(0).Sub(now.Round(0))
	known := l.ends.Equal(like.ends) && (!like.Expires.IsZero() || like.over)
	switch {
	case life > endless:
	case life > 0:
		l.Expires = now.Add(life)
		p.setWindow(l, like, max(life, g.Life), began, now)
	case known:
		// The value has expired, and the source still returns it, so the source is late.
		// The value continues to be used, because no other one is available, and is
		// fetched often.
		l.over = true
		l.RenewAt = now.Add(min(max(-life/4, p.cfg.MinBackoff), p.cfg.MaxBackoff))
	default:
		// The issuer has just issued the value, and it has already expired by the
		// issuer's own clock. That expiry cannot be right, so the expiry is unknown.
	}
	return l
}

// endless is a life that is treated as having no end. Times after 2262 cannot be
// expressed in nanoseconds since 1970.
const endless = 100 * 365 * 24 * time.Hour

// setWindow decides when a generation that expires is renewed before its end. whole is
// its full life.
func (p *planner[T]) setWindow(l *Generation[T], like Generation[T], whole time.Duration, began, now time.Time) {
	if p.cfg.Window <= 0 {
		return
	}
	life := l.Expires.Sub(now)
	if like.lead == 0 || !l.ends.Equal(like.ends) {
		l.lead = p.leadOf(whole)
		l.RenewAt = l.Expires.Add(-l.lead)
		return
	}
	l.lead = like.lead
	l.RenewAt = l.Expires.Add(-l.lead)
	if !like.inWindow(began) {
		return
	}
	// The source was asked for a successor in the window and has none yet. Asking
	// without a pause would be a busy loop. A recheck in between does not delay the
	// renewal.
	l.RenewAt = like.RenewAt
	if reached(like.RenewAt, began) {
		l.RenewAt = now.Add(max(p.cfg.MinBackoff, life/4))
	}
}

// SkewOf returns by how much the issuer's clock is certainly ahead. The issuer's time
// was read between two local times. It has whole seconds, so less than 2 s counts as
// zero.
func SkewOf(issued, began, now time.Time) time.Duration {
	skew := time.Duration(0)
	switch {
	case issued.Before(began):
		skew = issued.Sub(began)
	case issued.After(now):
		skew = issued.Sub(now)
	}
	if skew.Abs() < 2*time.Second {
		return 0
	}
	return skew
}

// leadOf returns how long before its end a value with the given life is renewed.
func (p *planner[T]) leadOf(life time.Duration) time.Duration {
	lead := min(time.Duration(float64(life)*p.cfg.Window), p.cfg.MaxLead)
	lead = time.Duration(float64(lead) * (0.9 + 0.2*p.cfg.Jitter()))
	return min(lead, life/2)
}
