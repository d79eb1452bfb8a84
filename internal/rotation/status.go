package rotation

import (
	"time"

	"github.com/agrenting/agrenting-go/internal/record"
)

// Status describes the key of a record and its rotation, as this process last saw the
// record. It is zero before the first load. For example, a status with a nonzero Due and
// Failures of 0 describes a key that will be rotated at that time.
type Status struct {
	Key        record.StoredKey
	Generation uint64
	// Due is when the key should be rotated; zero means never. Overdue is set if that time
	// has passed, or if nothing will rotate a key that is older than recommended. It is not
	// set while the first attempt of this process is running.
	Due     time.Time
	Overdue bool
	// Running is set while a run is under way in this process.
	Running bool
	// Last is when the last rotation ended. Err is why it failed; nil if it succeeded.
	// Failures counts consecutive failed runs, and RetryAt is when the next run is due.
	Last     time.Time
	Err      error
	Failures int
	RetryAt  time.Time
}

// Status describes the key. It makes no call and does not wait.
func (m *Manager) Status() Status {
	rec, now := m.ledger.latest().Body, time.Now()
	s := Status{Key: rec.Current, Generation: rec.Generation, Due: dueAt(rec, m.runner.policy.Every), Running: m.runner.running()}
	if rec.Current.IsZero() {
		return s
	}
	if rec.Generation > 1 {
		s.Last = rec.Current.Created
	}
	if last := m.runner.ended(); !last.ended.IsZero() && last.generation >= rec.Generation {
		s.Last, s.Err = last.ended, last.err
	}
	if s.Err != nil {
		s.Failures, s.RetryAt = m.runner.schedule.failing()
	}
	by := s.Due
	if created := rec.Current.Created; by.IsZero() && !created.IsZero() {
		by = created.Add(Recommended)
	}
	s.Overdue = !by.IsZero() && !now.Before(by) && (!s.Running || s.Failures > 0)
	return s
}

// lastRun describes the end of a run that has rotated the key or failed.
type lastRun struct {
	ended      time.Time
	err        error
	generation uint64 // the generation of the record, as far as it was known then
}

func (r *runner) ended() lastRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// note records the end of a run. A run that found nothing to do is not recorded.
func (r *runner) note(f *flight, generation uint64) {
	if f.res == nil && f.err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = lastRun{time.Now(), f.err, generation}
}

// failing returns how many consecutive runs have failed, and when the next run is due.
func (s *schedule) failing() (n int, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed, s.next
}
