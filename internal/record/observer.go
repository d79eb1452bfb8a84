package record

import (
	"sync"
	"time"
)

// Clock returns the time since an arbitrary moment, by a monotonic clock.
type Clock func() time.Duration

var started = time.Now()

func monotonic() time.Duration { return time.Since(started) }

// observer measures how long a record's revision has been unchanged. Time during
// which the store could not be reached does not count.
type observer struct {
	mu       sync.Mutex
	revision string
	anchor   time.Duration // since when it has been unchanged without a failure
	last     time.Duration // when the last successful load began
	before   time.Duration // the time measured before the last failure
	broken   bool          // the last load failed
}

// loaded notes a load that took from began to ended.
func (o *observer) loaded(revision string, began, ended time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case revision != o.revision:
		o.resetLocked(revision, ended)
	case o.broken:
		o.anchor, o.last, o.broken = ended, ended, false
	default:
		o.last = max(o.last, began)
	}
}

// told notes a report of a watch. The report may be about a record that has
// already been replaced, so it does not prove that a record is unchanged.
func (o *observer) told(revision string, now time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if revision != o.revision {
		o.resetLocked(revision, now)
	}
}

func (o *observer) resetLocked(revision string, now time.Duration) {
	o.revision, o.anchor, o.last, o.before, o.broken = revision, now, now, 0, false
}

// failed notes a load that failed.
func (o *observer) failed() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.broken {
		o.before += o.last - o.anchor
		o.broken = true
	}
}

// unchanged returns how long a revision is known to have been unchanged.
func (o *observer) unchanged(revision string) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case revision != o.revision:
		return 0
	case o.broken:
		return o.before
	default:
		return o.before + o.last - o.anchor
	}
}
