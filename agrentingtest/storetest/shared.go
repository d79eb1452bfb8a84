package storetest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
)

type sharedCase struct {
	name string
	run  func(t *tester, open func() agrenting.KeyStore)
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

func testSeen(t *tester, open func() agrenting.KeyStore) {
	a, b := open(), open()
	mustBeEmpty(t, b)
	rec := full(1, 0)
	rev := mustSave(t, a, rec, "")
	mustHold(t, b, rec, rev)
	rec = full(2, 1)
	rev = mustSave(t, b, rec, rev) // over the other's revision
	mustHold(t, a, rec, rev)
}

func testStaleElsewhere(t *tester, open func() agrenting.KeyStore) {
	a, b := open(), open()
	stale := mustSave(t, a, small(1), "")
	_, err := b.Save(t.Context(), small(2), "")
	mustConflict(t, err)
	rec := small(2)
	rev := mustSave(t, b, rec, stale)
	_, err = a.Save(t.Context(), small(3), stale)
	mustConflict(t, err)
	mustHold(t, a, rec, rev)
	mustHold(t, b, rec, rev)
}

func testFirstSaveElsewhere(t *tester, open func() agrenting.KeyStore) {
	race(t, handlesOf(open), 1, "")
}

func testRaceElsewhere(t *tester, open func() agrenting.KeyStore) {
	handles := handlesOf(open)
	rev := mustSave(t, handles[0], small(1), "")
	for round := range 3 {
		rev = race(t, handles, uint64(round+2), rev)
	}
}

func handlesOf(open func() agrenting.KeyStore) []agrenting.KeyStore {
	handles := make([]agrenting.KeyStore, writers)
	for i := range handles {
		handles[i] = open()
	}
	return handles
}

func testCounting(t *tester, open func() agrenting.KeyStore) {
	const processes, each = 4, 10
	mustSave(t, open(), small(0), "")
	var wg sync.WaitGroup
	for range processes {
		s := open()
		wg.Go(func() {
			for range each {
				if err := increment(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	rec, _, err := open().Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if rec.Generation != processes*each {
		t.Errorf("%d handles have counted to %d each, and the sum is %d", processes, each, rec.Generation)
	}
}

// increment adds one to the generation, however often another writer is faster.
// Each conflict means that another one has made a step, so there cannot be many.
func increment(ctx context.Context, s agrenting.KeyStore) error {
	for range 100 {
		rec, rev, err := s.Load(ctx)
		if err != nil {
			return err
		}
		rec.Generation++
		if _, err = s.Save(ctx, rec, rev); !errors.Is(err, agrenting.ErrConflictingWrite) {
			return err
		}
	}
	return errors.New("a save fails again and again by a conflict, although the record was loaded before each")
}

func testReopened(t *tester, open func() agrenting.KeyStore) {
	rec := full(1, 2)
	rev := mustSave(t, open(), rec, "")
	s := open()
	mustHold(t, s, rec, rev)
	_, err := s.Save(t.Context(), small(2), "")
	mustConflict(t, err)
	mustSave(t, s, small(2), rev)
}

func testWatchElsewhere(t *tester, open func() agrenting.KeyStore) {
	s := open()
	watcher, ok := open().(agrenting.KeyWatcher)
	if !ok {
		t.Log("the store is no KeyWatcher, there is nothing to test")
		return
	}
	rev := mustSave(t, s, small(1), "")
	w := watch(t, watcher)
	w.await(t, 1)
	for generation := range uint64(3) {
		rev = mustSave(t, s, small(generation+2), rev)
		w.await(t, generation+2)
		<-time.After(time.Millisecond)
	}
	w.stop(t)
}
