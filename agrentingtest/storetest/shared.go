package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go"
)

type sharedCase struct {
	name string
	run  func(t *testing.T, ctx context.Context, open func() agrenting.KeyStore)
}

var sharedCases = []sharedCase{
	{"what one saves the other sees", testSeen},
	{"one does not overwrite the other", testStaleElsewhere},
	{"one of many handles wins the first save", testFirstSaveElsewhere},
	{"one of many handles wins", testRaceElsewhere},
	{"no update is lost", testCounting},
	{"a handle that is opened later sees the record", testReopened},
	{"what one saves the other watches", testWatchElsewhere},
}

func testSeen(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	a, b := open(), open()
	mustBeEmpty(t, ctx, b)
	rec := full(1, 0)
	rev := mustSave(t, ctx, a, rec, "")
	mustHold(t, ctx, b, rec, rev)
	rec = full(2, 1)
	rev = mustSave(t, ctx, b, rec, rev) // over the other's revision
	mustHold(t, ctx, a, rec, rev)
}

func testStaleElsewhere(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	a, b := open(), open()
	stale := mustSave(t, ctx, a, small(1), "")
	_, err := b.Save(ctx, small(2), "")
	mustConflict(t, err)
	rec := small(2)
	rev := mustSave(t, ctx, b, rec, stale)
	_, err = a.Save(ctx, small(3), stale)
	mustConflict(t, err)
	mustHold(t, ctx, a, rec, rev)
	mustHold(t, ctx, b, rec, rev)
}

func testFirstSaveElsewhere(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	race(t, ctx, handlesOf(open), 1, "")
}

func testRaceElsewhere(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	handles := handlesOf(open)
	rev := mustSave(t, ctx, handles[0], small(1), "")
	for round := range 3 {
		rev = race(t, ctx, handles, uint64(round+2), rev) //nolint:gosec // a small number
	}
}

func handlesOf(open func() agrenting.KeyStore) []agrenting.KeyStore {
	handles := make([]agrenting.KeyStore, writers)
	for i := range handles {
		handles[i] = open()
	}
	return handles
}

func testCounting(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	const processes, each = 4, 10
	mustSave(t, ctx, open(), small(0), "")
	var wg sync.WaitGroup
	for range processes {
		s := open()
		wg.Go(func() {
			for range each {
				if err := increment(ctx, s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	rec, _, err := open().Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if rec.Generation != processes*each {
		t.Errorf("%d handles have counted to %d each, and the sum is %d", processes, each, rec.Generation)
	}
}

// increment adds one to the generation, however often another writer is faster.
func increment(ctx context.Context, s agrenting.KeyStore) error {
	for {
		rec, rev, err := s.Load(ctx)
		if err != nil {
			return err
		}
		rec.Generation++
		if _, err = s.Save(ctx, rec, rev); !errors.Is(err, agrenting.ErrConflictingWrite) {
			return err
		}
	}
}

func testReopened(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	rec := full(1, 2)
	rev := mustSave(t, ctx, open(), rec, "")
	s := open()
	mustHold(t, ctx, s, rec, rev)
	_, err := s.Save(ctx, small(2), "")
	mustConflict(t, err)
	mustSave(t, ctx, s, small(2), rev)
}

func testWatchElsewhere(t *testing.T, ctx context.Context, open func() agrenting.KeyStore) {
	s := open()
	watcher, ok := open().(agrenting.KeyWatcher)
	if !ok {
		t.Log("the store is no KeyWatcher, there is nothing to test")
		return
	}
	rev := mustSave(t, ctx, s, small(1), "")
	w := watch(t, ctx, watcher)
	w.await(t, 1)
	for generation := range uint64(3) {
		rev = mustSave(t, ctx, s, small(generation+2), rev)
		w.await(t, generation+2)
		<-time.After(time.Millisecond)
	}
	w.stop(t)
}
