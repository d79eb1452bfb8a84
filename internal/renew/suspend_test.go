package renew

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// suspended is t as a time read before the machine slept for d, and the
// monotonic clock with it: on that clock, t is as much later.
func suspended(tb testing.TB, t time.Time, d time.Duration) time.Time {
	tb.Helper()
	// A time.Time with a monotonic reading keeps it in its second word.
	later := t
	(*[2]int64)(unsafe.Pointer(&later))[1] += int64(d)
	require.Equal(tb, t.UnixNano(), later.UnixNano(), "the wall clock advanced")
	require.Equal(tb, d, later.Sub(t), "the monotonic clock stood still")
	return later
}

// woken is a generation of an hour, with a window of 12 minutes, of which past has
// gone by the wall clock, while the monotonic clock stood still.
func woken(tb testing.TB, now time.Time, past time.Duration) *Generation[string] {
	tb.Helper()
	obtained := suspended(tb, now.Add(-past), past)
	l := &Generation[string]{Obtained: obtained, Expires: obtained.Add(time.Hour), lead: 12 * time.Minute}
	l.RenewAt = l.Expires.Add(-l.lead)
	return l.until(l.RenewAt)
}

func TestTheWallClockDecidesAfterASuspend(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		slept                    time.Duration
		fresh, inWindow, expired bool
	}{
		{47 * time.Minute, true, false, false},
		{49 * time.Minute, false, true, false},
		{59 * time.Minute, false, true, false},
		{61 * time.Minute, false, true, true},
	} {
		t.Run(tc.slept.String(), func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			l := woken(t, now, tc.slept)
			assert.Equal(t, tc.fresh, l.fresh())
			assert.Equal(t, tc.inWindow, l.inWindow(now))
			assert.Equal(t, tc.expired, l.expired(now))
		})
	}
}

func TestExpiryUsesMonotonicClock(t *testing.T) {
	t.Parallel()
	now := time.Now()
	// Two hours have passed, and the wall clock was set back by them.
	obtained := suspended(t, now, -2*time.Hour)
	l := &Generation[string]{Obtained: obtained, Expires: obtained.Add(time.Hour), lead: 12 * time.Minute}
	l.RenewAt = l.Expires.Add(-l.lead)
	l = l.until(l.RenewAt)
	assert.False(t, l.fresh())
	assert.True(t, l.inWindow(now))
	assert.True(t, l.expired(now))
}
