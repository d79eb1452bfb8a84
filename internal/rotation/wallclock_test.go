package rotation_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// A rotation has begun, and its first call may have happened, when the wall clock of the
// machine jumps: the times of the record are off by a day. Two clients use the store.
func TestRecordDatesOffByADay(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	n := 0
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, off := range []time.Duration{-2 * day, -day, day, 2 * day} {
			for _, happened := range []bool{false, true} {
				for _, attempts := range []int{0, 2} {
					for _, owner := range []bool{false, true} {
						n++
						if sample.Fewer && n%3 != 0 {
							continue
						}
						name := fmt.Sprintf("%s, %v, happened %v, %d attempts, owner %v", strategy, off, happened, attempts, owner)
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							synctest.Test(t, func(t *testing.T) {
								jumpWhileIssuing(t, strategy, off, happened, attempts, owner)
							})
						})
					}
				}
			}
		}
	}
}

func jumpWhileIssuing(t *testing.T, strategy agrenting.Strategy, off time.Duration, happened bool, attempts int, owner bool) {
	t.Helper()
	w := sdktest.NewRotationWorld(t)
	p := agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID, Every: -1}
	if owner {
		p.Owner = agrenting.Static(agrenting.UserToken(w.Owner.Secret))
	}
	store := agrenting.MemoryStore()
	first := w.Client(store, p)
	require.NoError(t, w.Call(first))
	failing := agrentingtest.Page(502)
	if happened {
		failing = failing.AfterServing()
	}
	w.Server.Fault(sdktest.RouteCreateKey, failing.Always())
	w.Server.Fault(sdktest.RouteRotate, failing.Always())
	_, err := first.Rotate(t.Context())
	require.Error(t, err)
	require.NoError(t, first.Close())
	w.Server.ClearFaults()
	rec, rev, err := sdktest.LoadRecord(t.Context(), store)
	require.NoError(t, err)
	require.NotNil(t, rec.Intent)
	rec.Intent.Started = rec.Intent.Started.Add(off)
	rec.Intent.Attempts = attempts
	_, err = sdktest.SaveRecord(t.Context(), store, rec, rev)
	require.NoError(t, err)
	twoClientsFinish(t, w, store, p)
}

// twoClientsFinish has two clients use the store while they finish a rotation.
func twoClientsFinish(t *testing.T, w *sdktest.RotationWorld, store agrenting.Store, p agrenting.RotationPolicy) {
	t.Helper()
	var wg sync.WaitGroup
	var clients []*agrenting.Client
	for range 2 {
		c := w.Client(store, p)
		clients = append(clients, c)
		for range 3 {
			wg.Go(func() {
				for range 100 {
					if err := w.Call(c); err != nil {
						t.Error(err)
					}
					_ = renew.Sleep(t.Context(), 100*time.Millisecond)
				}
			})
		}
		wg.Go(func() {
			_, err := c.Rotate(t.Context())
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	w.OneLiveKey(store)
	for _, c := range clients {
		require.NoError(t, c.Close())
	}
}

func TestWallClockJumpsDuringGrace(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, off := range []time.Duration{-2 * day, -day, day, 2 * day} {
		for name, change := range map[string]func(in *record.Intent){
			"both times":   func(in *record.Intent) { in.Started, in.GraceEnd = in.Started.Add(off), in.GraceEnd.Add(off) },
			"only its end": func(in *record.Intent) { in.GraceEnd = in.GraceEnd.Add(off) },
		} {
			t.Run(fmt.Sprintf("%s by %v", name, off), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					next := w.Server.NewKey(w.Agent.ID)
					store, now := agrenting.MemoryStore(), sdktest.WallNow()
					in := &record.Intent{
						Key: wire.NewUUID(), Strategy: agrenting.Overlap.String(), Stage: string(agrenting.StageRevoke), Generation: 2,
						From: agrenting.APIKey(w.Key.Secret).Fingerprint(), Started: now, Grace: time.Minute, GraceEnd: now.Add(time.Minute),
					}
					change(in)
					_, err := sdktest.SaveRecord(t.Context(), store, record.Key{
						Agent: w.Agent.ID, Generation: 2, Intent: in, Ancestors: []string{in.From},
						Current:  record.StoredKey{Credential: sdktest.SecretCredential(agrenting.APIKey(next.Secret)), ID: next.ID, Created: now},
						Previous: record.StoredKey{Credential: sdktest.SecretCredential(agrenting.APIKey(w.Key.Secret)), ID: w.Key.ID, Created: now},
					}, "")
					require.NoError(t, err)
					p := agrenting.RotationPolicy{Every: -1}
					a, b := w.Client(store, p), w.Client(store, p)
					for range 20 {
						require.NoError(t, w.Call(a))
						require.NoError(t, w.Call(b))
						sdktest.Advance(100 * time.Millisecond)
					}
					assert.True(t, w.Server.KeyAlive(w.Key.Secret), "no process has seen the record for long")
					for range 80 {
						require.NoError(t, w.Call(a))
						require.NoError(t, w.Call(b))
						sdktest.Advance(time.Second)
					}
					w.OneLiveKey(store)
					require.NoError(t, a.Close())
					require.NoError(t, b.Close())
				})
			})
		}
	}
}
