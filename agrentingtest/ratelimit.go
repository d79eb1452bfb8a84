package agrentingtest

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// RateLimits are the limits of the platform's rate-limit page, such as
// RateLimits{Authenticate: 3}. A zero field means the documented default. Most
// programs only set Authenticate or General.
type RateLimits struct {
	// General is the number of requests that an agent or a user may send in a window.
	// The default is 100. An agent with a high reputation has twice this limit, an
	// agent with a low reputation half of it, and a sandbox agent has twice its limit
	// in production.
	General int
	// Channel is the number of channel requests of an agent or a user in a window.
	// The default is 30, adjusted like General. The platform does not document what
	// it counts. This server counts each handshake of a socket, see
	// [Server.HandleQuery].
	Channel int
	// Authenticate is the number of calls of authenticate from a source address in a
	// window. The default is 10.
	Authenticate int
	// Window is the length of a window, which begins with the first request. The
	// default is 60 seconds.
	Window time.Duration
	// AuthenticateWindow is the length of a window for authenticate. The default is
	// Window.
	AuthenticateWindow time.Duration
	// Lockout is how long a source address that exceeded Authenticate is refused. The
	// default is 5 minutes. A negative value means until the window of authenticate
	// ends.
	Lockout time.Duration
	// Registrations is the number of agents that a source address may register
	// without a credential. The default is 3.
	Registrations int
}

func (l RateLimits) withDefaults() RateLimits {
	def := func(n *int, d int) {
		if *n == 0 {
			*n = d
		}
	}
	def(&l.General, 100)
	def(&l.Channel, 30)
	def(&l.Authenticate, 10)
	def(&l.Registrations, 3)
	if l.Window == 0 {
		l.Window = time.Minute
	}
	if l.AuthenticateWindow == 0 {
		l.AuthenticateWindow = l.Window
	}
	if l.Lockout == 0 {
		l.Lockout = 5 * time.Minute
	}
	return l
}

// limiter counts in fixed windows that start with their first request.
type limiter struct {
	limits RateLimits
	off    bool

	mu         sync.Mutex
	buckets    map[string]bucket
	locked     map[string]time.Time // end of the lockout by source address
	registered map[string]int       // anonymous registrations by source address
}

type bucket struct {
	end  time.Time
	used int
}

// allowance has the values of the rate-limit headers.
type allowance struct{ limit, remaining int }

func newLimiter(limits RateLimits, off bool) *limiter {
	return &limiter{
		limits:     limits,
		off:        off,
		buckets:    make(map[string]bucket),
		locked:     make(map[string]time.Time),
		registered: make(map[string]int),
	}
}

// take counts one request in a bucket. If the bucket is empty, it returns how long
// to wait.
func (l *limiter) take(name string, limit int) (allowance, time.Duration) {
	if l.off {
		return allowance{limit, limit}, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.takeLocked(name, limit, l.limits.Window, time.Now())
}

func (l *limiter) takeLocked(name string, limit int, window time.Duration, now time.Time) (allowance, time.Duration) {
	b := l.current(name, now)
	if b.used >= limit {
		return allowance{limit, 0}, b.end.Sub(now)
	}
	if b.used == 0 {
		b.end = now.Add(window)
		l.sweep(now)
	}
	b.used++
	l.buckets[name] = b
	return allowance{limit, limit - b.used}, 0
}

// peek reads a bucket without counting a request.
func (l *limiter) peek(name string, limit int) allowance {
	if l.off {
		return allowance{limit, limit}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return allowance{limit, max(0, limit-l.current(name, time.Now()).used)}
}

// authenticate counts a call of authenticate. It locks out an address that exceeds
// the limit.
func (l *limiter) authenticate(ip string) (allowance, time.Duration) {
	limit := l.limits.Authenticate
	if l.off {
		return allowance{limit, limit}, 0
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if until, ok := l.locked[ip]; ok {
		if wait := until.Sub(now); wait > 0 {
			return allowance{limit, 0}, wait
		}
		delete(l.locked, ip)
	}
	a, wait := l.takeLocked("auth:"+ip, limit, l.limits.AuthenticateWindow, now)
	if wait > 0 && l.limits.Lockout > 0 {
		l.locked[ip] = now.Add(l.limits.Lockout)
		delete(l.buckets, "auth:"+ip)
		wait = l.limits.Lockout
	}
	return a, wait
}

// register counts one anonymous registration of an address, and reports whether it
// is allowed.
func (l *limiter) register(ip string) bool {
	if l.off {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.registered[ip] >= l.limits.Registrations {
		return false
	}
	l.registered[ip]++
	return true
}

func (l *limiter) current(name string, now time.Time) bucket {
	b := l.buckets[name]
	if !now.Before(b.end) {
		return bucket{}
	}
	return b
}

// sweep removes windows that have ended. It runs from time to time as part of a
// request, because the limiter has no goroutine.
func (l *limiter) sweep(now time.Time) {
	if len(l.buckets) < 4096 {
		return
	}
	for name, b := range l.buckets {
		if !now.Before(b.end) {
			delete(l.buckets, name)
		}
	}
}

// general returns the limit of an agent, which depends on its reputation and
// environment.
func (l *limiter) general(a *agent) int { return adjusted(l.limits.General, a) }

// channel returns the limit of an agent for channels.
func (l *limiter) channel(a *agent) int { return adjusted(l.limits.Channel, a) }

func adjusted(n int, a *agent) int {
	if a == nil {
		return n
	}
	switch {
	case a.reputation >= 4.5:
		n *= 2
	case a.reputation > 0 && a.reputation < 3:
		n = max(1, n/2)
	}
	if a.sandbox {
		n *= 2
	}
	return n
}

// limited returns the 429. The platform uses the same response for a lockout.
func limited(wait time.Duration) *failure {
	f := fail(http.StatusTooManyRequests, CodeRateLimited, "rate limit exceeded")
	seconds := int64((wait + time.Second - 1) / time.Second)
	f.retryAfter = strconv.FormatInt(max(seconds, 1), 10)
	return f
}
