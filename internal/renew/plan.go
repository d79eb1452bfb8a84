package renew

import "time"

// planner decides when a generation ends and when it is renewed. Its methods are called
// under the engine's lock.
type planner[T any] struct {
	cfg  *Config[T]
	skew time.Duration // issuer's clock minus ours
}

// generationOf translates a grant to the local clock and decides when to renew. like has
// the same number: a value that is fetched again keeps its lead, because otherwise each
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
		// The value has expired, and the source returns it again: the source is late.
		// The value is served, because no other is available, and fetched often.
		l.over = true
		l.RenewAt = now.Add(min(max(-life/4, p.cfg.MinBackoff), p.cfg.MaxBackoff))
	default:
		// The issuer has just issued it as expired, so its time cannot be right. The
		// expiry is unknown.
	}
	return l
}

// endless is a life that is treated as having no end. Times after 2262 cannot be
// expressed in nanoseconds since 1970.
const endless = 100 * 365 * 24 * time.Hour

// setWindow decides when a generation that expires is renewed ahead. whole is its life
// from the beginning.
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
	// The source was asked for a successor in the window, and has none yet. To ask
	// without a pause would spin, and a recheck in between does not delay it.
	l.RenewAt = like.RenewAt
	if reached(like.RenewAt, began) {
		l.RenewAt = now.Add(max(p.cfg.MinBackoff, life/4))
	}
}

// SkewOf returns by how much the issuer's clock is certainly ahead: its time was read
// between two of ours. It has whole seconds, so less than two counts as none.
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

// leadOf is how long before its end a life is renewed.
func (p *planner[T]) leadOf(life time.Duration) time.Duration {
	lead := min(time.Duration(float64(life)*p.cfg.Window), p.cfg.MaxLead)
	lead = time.Duration(float64(lead) * (0.9 + 0.2*p.cfg.Spread()))
	return min(lead, life/2)
}
