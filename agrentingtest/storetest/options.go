package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/agrenting/agrenting-go"
)

var optionCases = []testCase{
	{name: "place that is gone", run: testGone, needs: func(s *suite) string {
		if s.gone == nil {
			return "the option Gone is not given"
		}
		return ""
	}},
	{name: "deleted record", run: testDeleted, needs: needsDelete},
	{name: "unreachable place", run: testUnreachable, needs: needsUnreachable},
	{name: "read-only store", run: testReadOnly, needs: func(s *suite) string {
		if s.readOnly == nil {
			return "the option ReadOnly is not given"
		}
		return ""
	}},
}

func needsDelete(s *suite) string {
	if s.remove == nil {
		return "the option Delete is not given"
	}
	return ""
}

func needsUnreachable(s *suite) string {
	if s.unreachable == nil {
		return "the option Unreachable is not given"
	}
	return ""
}

// mustFail fails the test unless err reports a failure of the store.
func mustFail(t *tester, what string, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatalf("%s succeeded", what)
	case errors.Is(err, agrenting.ErrNoRecord):
		t.Fatalf("%s: %v; it matches ErrNoRecord, so the store would be filled again", what, err)
	case errors.Is(err, agrenting.ErrConflictingWrite):
		t.Fatalf("%s: %v; it matches ErrConflictingWrite, but there was no other writer", what, err)
	}
}

func testGone(t *tester) {
	s := t.suite.gone(t.T)
	name := newName()
	_, err := s.Load(t.Context(), name)
	mustFail(t, "Load of a place that is gone", err)
	_, err = s.Save(t.Context(), name, someData(), "some revision")
	mustFail(t, "Save to a place that is gone, over a revision", err)
	_, err = s.Load(t.Context(), name)
	mustFail(t, "Load of a place that is gone, after a save that failed", err)
	if w, ok := s.(agrenting.Watcher); ok {
		mustWatchFail(t, w, name)
	}
}

func testDeleted(t *tester) {
	a, b := t.pair()
	name, data := newName(), someData()
	seen := map[agrenting.Revision]bool{}
	var stale []agrenting.Revision
	for range 4 {
		rev := mustSave(t, a, name, data, "") // saves the same data each time
		rev2 := mustSave(t, b, name, someData(), rev)
		for _, r := range []agrenting.Revision{rev, rev2} {
			if seen[r] {
				t.Fatalf("the revision %q recurs after the record was deleted and created again", r)
			}
			seen[r] = true
		}
		for _, old := range stale {
			got, err := b.Save(t.Context(), name, someData(), old)
			mustConflict(t, got, err)
		}
		stale = append(stale, rev, rev2)
		t.suite.remove(t.T, a, name)
		mustBeMissing(t, a, name)
		mustBeMissing(t, b, name)
		for _, old := range stale {
			got, err := b.Save(t.Context(), name, someData(), old)
			mustConflict(t, got, err)
		}
		mustBeMissing(t, a, name)
	}
}

func testUnreachable(t *tester) {
	s, cut, restore := t.suite.unreachable(t.T)
	name, data := newName(), someData()
	rev := mustSave(t, s, name, data, "")
	cut()
	mustBeQuick := func(what string, f func(ctx context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		mustFail(t, what+" while the place is unreachable", f(ctx))
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("%s took %v, and its context ended after 200ms", what, took)
		}
	}
	mustBeQuick("Load", func(ctx context.Context) error {
		_, err := s.Load(ctx, name)
		return err
	})
	mustBeQuick("Load of a missing record", func(ctx context.Context) error {
		_, err := s.Load(ctx, newName())
		return err
	})
	next := someData()
	mustBeQuick("Save", func(ctx context.Context) error {
		_, err := s.Save(ctx, name, next, rev)
		return err
	})
	restore()
	for end := time.Now().Add(t.soon()); ; {
		rec, err := s.Load(t.Context(), name)
		if err == nil {
			if difference(data, rec.Data) != "" && difference(next, rec.Data) != "" {
				t.Fatal("after an outage, the record is neither what was saved before nor during it")
			}
			mustSaveEventually(t, s, name)
			return
		}
		mustFail(t, "Load after an outage", err)
		if time.Now().After(end) {
			t.Fatalf("Load still fails after an outage: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// mustSaveEventually replaces a record. A save from before the outage may still
// take effect first.
func mustSaveEventually(t *tester, s agrenting.Store, name string) {
	t.Helper()
	var err error
	for range 10 {
		rec, lerr := s.Load(t.Context(), name)
		if lerr != nil {
			t.Fatalf("Load after an outage: %v", lerr)
		}
		if _, err = s.Save(t.Context(), name, someData(), rec.Revision); err == nil {
			return
		}
	}
	t.Fatalf("Save after an outage: %v", err)
}

func testReadOnly(t *tester) {
	s := t.suite.readOnly(t.T)
	name := newName()
	rev, err := s.Save(t.Context(), name, someData(), "")
	if !errors.Is(err, agrenting.ErrReadOnlyStore) || rev != "" {
		t.Fatalf("Save: revision %q, error %v; want an error that matches ErrReadOnlyStore", rev, err)
	}
	if errors.Is(err, agrenting.ErrConflictingWrite) || errors.Is(err, agrenting.ErrNoRecord) {
		t.Fatalf("Save: %v; it also matches another error", err)
	}
	mustBeMissing(t, s, name)
}
