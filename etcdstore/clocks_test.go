package etcdstore_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/etcdstore"
)

// jumpy is the store of a process whose clock jumps: what it writes down as now
// is ahead of the others' clocks, or behind.
type jumpy struct {
	*etcdstore.Store
	ahead atomic.Int64
}

func (s *jumpy) Load(ctx context.Context) (agrenting.KeyRecord, agrenting.Revision, error) {
	rec, rev, err := s.Store.Load(ctx)
	return moved(rec, time.Duration(-s.ahead.Load())), rev, err
}

func (s *jumpy) Save(ctx context.Context, rec agrenting.KeyRecord, previous agrenting.Revision) (agrenting.Revision, error) {
	return s.Store.Save(ctx, moved(rec, time.Duration(s.ahead.Load())), previous)
}

// moved is the record with its intent's times as another clock has them.
func moved(rec agrenting.KeyRecord, by time.Duration) agrenting.KeyRecord {
	if rec.Intent != nil {
		in := *rec.Intent
		in.Lease, in.Started = in.Lease.Add(by), in.Started.Add(by)
		rec.Intent = &in
	}
	return rec
}

func TestClocksThatJumpCostNoRequestAndNoKey(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(strings.ReplaceAll(strategy.String(), " ", "-"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			name := unique(t)
			var clocks []*jumpy
			var all []*agrenting.Client
			for range 4 {
				s := &jumpy{Store: shared.open(t, name)}
				c := w.client(t, s, w.policy(strategy))
				require.NoError(t, call(t.Context(), c))
				clocks, all = append(clocks, s), append(all, c)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var jumps sync.WaitGroup
			jumps.Go(func() {
				for ctx.Err() == nil {
					by := []time.Duration{0, time.Minute, -time.Minute, 3 * time.Hour, -3 * time.Hour}[rand.IntN(5)]
					clocks[rand.IntN(len(clocks))].ahead.Store(int64(by))
					_ = pauseFor(ctx, 10*time.Millisecond)
				}
			})
			l := startLoad(t.Context(), time.Millisecond, all...)
			for n := range 12 {
				var both sync.WaitGroup
				for _, c := range []*agrenting.Client{all[n%4], all[(n+1)%4]} {
					both.Go(func() { _, _ = c.Rotate(t.Context()) }) // may find that its turn was taken
				}
				both.Wait()
			}
			cancel()
			jumps.Wait()
			for _, s := range clocks {
				s.ahead.Store(0)
			}
			rot, err := all[0].Rotate(t.Context())
			require.NoError(t, err, "clocks are right again")
			l.stop(t)
			assert.Empty(t, staleKeys(w))
			assert.Greater(t, rot.Generation, uint64(3))
			t.Logf("generation %d", rot.Generation)
		})
	}
}
