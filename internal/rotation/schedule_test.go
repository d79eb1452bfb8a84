package rotation

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

const day = 24 * time.Hour

// aged is a record with a key that was created and ends at some time.
func aged(n int, created, expires time.Time) record.Key {
	k := storedKey(n)
	k.Created, k.Expires = created, expires
	return record.Key{Generation: 1, Current: k}
}

func TestDueAt(t *testing.T) {
	t.Parallel()
	at := machineNow
	for name, tc := range map[string]struct {
		every    time.Duration
		expires  time.Time
		earliest time.Duration // after the creation; 0 for never
		latest   time.Duration
	}{
		"by age":                       {every: 90 * day, earliest: 81 * day, latest: 90 * day},
		"only on demand":               {every: -1},
		"only on demand, and expiring": {every: -1, expires: at.Add(day)},
		"before it expires":            {every: 90 * day, expires: at.Add(10 * day), earliest: 7*day + 4*time.Hour, latest: 8 * day},
		"it expires after its age":     {every: 90 * day, expires: at.Add(1000 * day), earliest: 81 * day, latest: 90 * day},
		"it expires far away":          {every: 90 * day, expires: at.AddDate(300, 0, 0), earliest: 81 * day, latest: 90 * day},
		"it never expires, some say":   {every: 90 * day, expires: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), earliest: 81 * day, latest: 90 * day},
		"it expires at its creation":   {every: 90 * day, expires: at, earliest: 81 * day, latest: 90 * day},
		"it expires before that":       {every: 90 * day, expires: at.Add(-day), earliest: 81 * day, latest: 90 * day},
		"it lives for a moment":        {every: 90 * day, expires: at.Add(time.Second), earliest: 54 * time.Second, latest: time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range 50 {
				rec := aged(n, at, tc.expires)
				due := dueAt(rec, tc.every)
				if tc.latest == 0 {
					require.True(t, due.IsZero(), "never")
					continue
				}
				require.GreaterOrEqual(t, due.Sub(at), tc.earliest)
				require.LessOrEqual(t, due.Sub(at), tc.latest)
			}
		})
	}
	assert.True(t, dueAt(record.Key{}, day).IsZero(), "there is no key")
}

// All processes that share a key agree, and keys are not due at the same time.
func TestJitterDependsOnTheKeyAlone(t *testing.T) {
	t.Parallel()
	var soonest, latest time.Duration
	for n := range 200 {
		rec := aged(n, machineNow, time.Time{})
		d := dueAt(rec, 100*day).Sub(machineNow)
		other := rec
		other.Generation, other.Current.ID = 7, "another"
		require.Equal(t, d, dueAt(other, 100*day).Sub(machineNow))
		if n == 0 {
			soonest, latest = d, d
		}
		soonest, latest = min(soonest, d), max(latest, d)
	}
	assert.Less(t, soonest, 91*day)
	assert.Greater(t, latest, 99*day)
}

func TestDue(t *testing.T) {
	t.Parallel()
	rec := aged(1, machineNow, time.Time{})
	at := dueAt(rec, 90*day)
	assert.False(t, due(rec, 90*day, at.Add(-time.Nanosecond)))
	assert.True(t, due(rec, 90*day, at))
	assert.False(t, due(rec, -1, at.AddDate(100, 0, 0)))
}

// fired is a schedule that counts how often it fires, and when it did last.
type fired struct {
	schedule

	n    atomic.Int64
	last atomic.Int64
}

func newFired(every time.Duration) *fired {
	f := &fired{}
	f.every, f.retryEvery = every, time.Minute
	f.fire = func() {
		f.n.Add(1)
		f.last.Store(time.Now().UnixNano())
	}
	return f
}

// attempt is an attempt that ends with err.
func (f *fired) attempt(rec record.Key, err error) {
	f.begun()
	f.ended(err)
	f.arm(rec, 0)
}

// pass lets virtual time pass.
func pass(d time.Duration) { <-time.After(d) }

func after(d time.Duration) {
	pass(d)
	synctest.Wait()
}

func TestScheduleFiresWhenTheKeyIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFired(90 * day)
		rec := aged(1, time.Now(), time.Time{})
		at := dueAt(rec, f.every)
		f.arm(rec, 0)
		after(time.Until(at) - time.Second)
		assert.EqualValues(t, 0, f.n.Load())
		after(time.Second)
		assert.EqualValues(t, 1, f.n.Load())
		f.close()
	})
}

func TestScheduleWithoutAnAgeNeverFires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFired(-1)
		f.arm(aged(1, time.Now(), time.Now().Add(day)), 0)
		after(1000 * day)
		assert.EqualValues(t, 0, f.n.Load())
		f.close()
	})
}

// The record is loaded, and the schedule armed, far more often than it fires.
func TestScheduleIsNotPutOffByLoads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFired(-1)
		rec := stateOf(Overlap, StageRevoke, withPrevious)
		f.attempt(rec, errModel)
		for range 100 { // for longer than the pause after one failure
			f.arm(rec, 0)
			after(time.Second)
		}
		assert.Positive(t, f.n.Load())
		f.close()
	})
}

func TestScheduleSpacesFailedAttempts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFired(-1)
		rec := stateOf(Overlap, StageIssue, nil)
		for n, want := range []time.Duration{
			time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute,
			64 * time.Minute, 128 * time.Minute, 256 * time.Minute, maxRetryEvery, maxRetryEvery,
		} {
			f.attempt(rec, errModel)
			until, err := f.pausing()
			require.ErrorIs(t, err, errModel)
			assert.LessOrEqual(t, time.Until(until), f.retryEvery, "a request waits no longer than that")
			after(want - time.Second)
			require.EqualValues(t, n, f.n.Load())
			after(time.Second)
			require.EqualValues(t, n+1, f.n.Load(), "after %v", want)
			_, err = f.pausing()
			require.NoError(t, err)
		}
		f.attempt(rec, nil)
		after(minRetryEvery)
		assert.EqualValues(t, 12, f.n.Load(), "after a success, the pause is short again")
		f.close()
	})
}

func TestScheduleRetriesBeforeTheKeyExpires(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{10 * time.Minute, time.Hour, day} {
		synctest.Test(t, func(t *testing.T) {
			f := newFired(90 * day)
			rec := aged(1, time.Now(), time.Now().Add(life))
			f.arm(rec, 0)
			after(time.Until(dueAt(rec, f.every)))
			require.EqualValues(t, 1, f.n.Load())
			for time.Now().Before(rec.Current.Expires) {
				f.attempt(rec, errModel)
				after(time.Until(rec.Current.Expires) / keyLeftShare)
				if time.Until(rec.Current.Expires) < 10*time.Second {
					break
				}
			}
			assert.Greater(t, f.n.Load(), int64(5), "a key that lives for %v", life)
			f.close()
		})
	}
}

// TestScheduleIsNotBusy renews a key as often as the schedule fires, whatever the
// platform says about how long keys live.
func TestScheduleIsNotBusy(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		every          time.Duration
		expires        func(created time.Time) time.Time
		within         time.Duration
		atLeast, atMax int64
	}{
		"far away":              {90 * day, func(time.Time) time.Time { return time.Date(2060, 12, 31, 0, 0, 0, 0, time.UTC) }, day, 0, 0},
		"never, as some say it": {90 * day, func(time.Time) time.Time { return time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC) }, day, 0, 0},
		"before its beginning":  {90 * day, func(at time.Time) time.Time { return at.Add(-day) }, day, 0, 0},
		"its beginning":         {90 * day, func(at time.Time) time.Time { return at }, day, 0, 0},
		"a moment later":        {90 * day, func(at time.Time) time.Time { return at.Add(time.Second) }, time.Hour, 50, 70},
		"a day later":           {90 * day, func(at time.Time) time.Time { return at.Add(day) }, 7 * day, 8, 10},
		"none, due every day":   {day, func(time.Time) time.Time { return time.Time{} }, 7 * day, 7, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFired(tc.every)
				n := 0
				renew := func() {
					n++
					f.attempt(aged(n, time.Now(), tc.expires(time.Now())), nil)
				}
				f.fire = func() {
					f.n.Add(1)
					renew()
				}
				renew()
				after(tc.within)
				f.close()
				assert.GreaterOrEqual(t, f.n.Load(), tc.atLeast)
				assert.LessOrEqual(t, f.n.Load(), tc.atMax)
			})
		})
	}
}

func TestScheduleWaitsForOtherProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFired(-1)
		f.arm(stateOf(InPlace, StageIssue, nil), 20*time.Second)
		after(19 * time.Second)
		assert.EqualValues(t, 0, f.n.Load())
		after(time.Second)
		assert.EqualValues(t, 1, f.n.Load())
		f.begun()
		f.arm(stateOf(InPlace, StageIssue, nil), 0)
		after(day)
		assert.EqualValues(t, 1, f.n.Load(), "nothing is armed while an attempt is under way")
		f.ended(nil)
		f.close()
		f.arm(stateOf(InPlace, StageIssue, nil), 0)
		after(day)
		assert.EqualValues(t, 1, f.n.Load(), "nothing is armed after close")
	})
}

// A key whose times come from another clock is not due at once, nor never.
func TestLocalTimes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		skew time.Duration // of the platform's clock
		life time.Duration // 0 for none
		born bool          // the platform says when the key was created
	}{
		"clocks agree":                          {0, day, true},
		"the platform is behind":                {-30 * time.Hour, day, true},
		"it is almost as much":                  {-18 * time.Hour, day, true},
		"it does not say when it began":         {-30 * time.Hour, day, false},
		"the platform is ahead":                 {30 * time.Hour, day, true},
		"the platform is a year behind":         {-365 * day, 0, true},
		"it is as much behind as the key lives": {-365 * day, 365 * day, true},
		"the platform is decades behind":        {-30 * 365 * day, day, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				every := 90 * day
				sent := time.Now().Add(tc.skew)
				issued := IssuedKey{}
				if tc.born {
					issued.Created = sent
				}
				if tc.life > 0 {
					issued.Expires = sent.Add(tc.life)
				}
				k := storedKey(1)
				k.Created, k.Expires = localTimes(issued, sent, every)
				at := dueAt(record.Key{Current: k}, every)
				life := every
				if tc.life > 0 {
					life = min(life, tc.life/5*4)
				}
				assert.InDelta(t, life.Hours(), time.Until(at).Hours(), life.Hours()/4)
			})
		})
	}
}

func TestFailedAttemptsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFired(-1)
		until, err := f.pausing()
		assert.True(t, until.IsZero())
		require.NoError(t, err)
		f.attempt(record.Key{}, errors.Join(errModel, errRefused))
		_, err = f.pausing()
		require.ErrorIs(t, err, errModel)
		f.attempt(record.Key{}, nil)
		_, err = f.pausing()
		require.NoError(t, err)
		f.close()
	})
}
