package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
)

const (
	// defaultMaxExchanges is less than the 10 calls per minute after which the platform
	// locks an address out (platform documentation, "Rate Limits").
	defaultMaxExchanges = 8
	limitWindow         = time.Minute
)

// RefusedError reports that the platform has refused a key and confirms that the key is
// dead.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

// IsRefused reports whether an exchange failed because the key is dead.
func IsRefused(err error) bool {
	if p, ok := errors.AsType[*PausedError](err); ok {
		return p.refused && !p.Locked
	}
	_, ok := errors.AsType[*RefusedError](err)
	return ok
}

// wasRefused reports whether the key of this exchange is dead. An exchange that the limit
// prevented was not made.
func wasRefused(err error) bool {
	_, limited := errors.AsType[*LimitError](err)
	return !limited && IsRefused(err)
}

// LimitError reports that the SDK does not make an exchange now, because there were too
// many.
type LimitError struct {
	// Until is when the next exchange is allowed.
	Until time.Time
	// Err is why the last exchange failed; nil if it succeeded.
	Err error

	limit int
}

// Error says how to raise the limit.
func (e *LimitError) Error() string {
	text := fmt.Sprintf("agrenting: %d exchanges were made within a minute, and more would lock this address out; see SessionPolicy.MaxExchanges", e.limit)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns why the last exchange failed.
func (e *LimitError) Unwrap() error { return e.Err }

// limit counts an exchange that will be made. limited is set if there were too many.
// limit then returns the current session, if that is not known to be dead, or the error.
// If the last exchange did not fail, the first one, scheduled renewals, and those for an
// expiry or a rotated key are always made. shared contains the exchanges of all
// processes.
func (s *Source) limit(q query, shared []time.Time) (g grant, limited bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.recent = within(s.recent, now)
	if !s.isFreeLocked(q, now) || s.failure != nil {
		limit := s.cfg.MaxExchanges
		if limit == 0 {
			limit = defaultMaxExchanges
		}
		all := s.recent
		if shared = within(shared, now); len(shared) > len(all) {
			all = shared
		}
		if len(all) >= limit {
			if !q.Proven && q.HasCurrent && q.Current.Equal(s.last.Value) && !isOver(s.last, now) {
				g = s.last
				g.Issued, g.Recheck = time.Time{}, s.cfg.Keys.Recheck()
				return g, true, nil
			}
			return grant{}, true, &LimitError{Until: all[len(all)-limit].Add(limitWindow), Err: s.failure, limit: limit}
		}
	}
	s.recent = append(s.recent, now)
	return grant{}, false, nil
}

// isFreeLocked reports whether the limit does not apply to the first attempt for a query,
// because an expiry has caused it or the program has asked for it.
func (s *Source) isFreeLocked(q query, now time.Time) bool {
	switch q.Reason {
	case renew.First, renew.Early, renew.Expired, renew.Manual:
		return true
	default:
		// The platform may have noticed the expiry a moment before this process.
		return q.HasRejected && q.Rejected.Equal(s.last.Value) && isOver(s.last, now.Add(s.skew+time.Second))
	}
}

func isOver(g grant, now time.Time) bool { return !g.Expires.IsZero() && !now.Before(g.Expires) }

// within returns the times in the last minute. Times by another clock may be in the
// future.
func within(times []time.Time, now time.Time) []time.Time {
	var recent []time.Time
	for _, t := range times {
		if now.Sub(t).Abs() < limitWindow {
			recent = append(recent, t)
		}
	}
	return recent
}
