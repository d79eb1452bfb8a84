package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
)

// writers is how many write at once.
const writers = 8

type storeCase struct {
	name string
	run  func(t *tester, s agrenting.KeyStore)
}

var storeCases = []storeCase{
	{"an empty store has no record", testEmpty},
	{"the first save", testFirstSave},
	{"no first save with a revision", testFirstSaveWithRevision},
	{"every field comes back", testRoundTrip},
	{"a large record comes back", testLarge},
	{"a stale revision is refused", testStale},
	{"an invented revision is refused", testInvented},
	{"no revision is used twice", testRevisionsAreUnique},
	{"one of many writers wins", testConcurrentSaves},
	{"readers see whole records", testConcurrentLoads},
	{"records are copies", testCopies},
	{"a cancelled context", testCancelled},
	{"nothing printed is secret", testPrinting},
}

// mustSave saves or fails the test.
func mustSave(t *tester, s agrenting.KeyStore, rec agrenting.KeyRecord, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), rec, previous)
	if err != nil {
		t.Fatalf("Save over revision %q: %v", previous, err)
	}
	if rev == "" {
		t.Fatal(`Save returned the revision "", which stands for an empty store`)
	}
	return rev
}

// mustHold fails the test unless the store holds the record at the revision.
func mustHold(t *tester, s agrenting.KeyStore, want agrenting.KeyRecord, at agrenting.Revision) {
	t.Helper()
	rec, rev, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if d := difference(want, rec); d != "" {
		t.Errorf("the record differs from what was saved: %s", d)
	}
	if rev != at {
		t.Errorf("Load gives the revision %q, and Save gave %q", rev, at)
	}
}

// mustConflict fails the test unless err is that of a lost compare-and-swap.
func mustConflict(t *tester, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatal("Save succeeded, want an error that matches ErrConflictingWrite")
	case !errors.Is(err, agrenting.ErrConflictingWrite):
		t.Fatalf("Save: %v; want an error that matches ErrConflictingWrite", err)
	case errors.Is(err, agrenting.ErrNoCredential):
		t.Fatalf("Save: %v; it also matches ErrNoCredential, which says that the store is empty", err)
	}
}

func mustBeEmpty(t *tester, s agrenting.KeyStore) {
	t.Helper()
	rec, rev, err := s.Load(t.Context())
	if !errors.Is(err, agrenting.ErrNoCredential) {
		t.Fatalf("Load of an empty store: %v; want an error that matches ErrNoCredential", err)
	}
	if rev != "" {
		t.Errorf("an empty store has the revision %q, want none", rev)
	}
	if d := difference(agrenting.KeyRecord{}, rec); d != "" {
		t.Errorf("an empty store has a record: %s", d)
	}
}

func testEmpty(t *tester, s agrenting.KeyStore) {
	mustBeEmpty(t, s)
	mustBeEmpty(t, s) // looking changes nothing
}

func testFirstSave(t *tester, s agrenting.KeyStore) {
	rec := small(1)
	rev := mustSave(t, s, rec, "")
	mustHold(t, s, rec, rev)
	_, err := s.Save(t.Context(), small(2), "")
	mustConflict(t, err)
	mustHold(t, s, rec, rev)
}

func testFirstSaveWithRevision(t *tester, s agrenting.KeyStore) {
	for _, previous := range []agrenting.Revision{"1", "0", "not a revision"} {
		_, err := s.Save(t.Context(), small(1), previous)
		mustConflict(t, err)
	}
	mustBeEmpty(t, s)
}

func testRoundTrip(t *tester, s agrenting.KeyStore) {
	records := []agrenting.KeyRecord{full(1, 0), full(2, 1), full(3, 2), small(4)}
	inPlace := full(5, 0)
	inPlace.Intent.Strategy, inPlace.Intent.Stage = agrenting.InPlace, agrenting.StageIssue
	bare := small(6)
	bare.Intent = &agrenting.Intent{Key: "k", Strategy: agrenting.InPlace, Stage: agrenting.StageIssue, Generation: 7}
	sessions := small(7)
	sessions.Current = agrenting.StoredKey{Credential: agrenting.UserToken(token("ap_"))}
	sessions.Pending.Credential = agrenting.SessionToken(token("session-"), time.Time{}) // its end is not known
	sessions.Previous.Credential = agrenting.SessionToken(token("session-"), instant(-30000))
	sessions.Previous.Expires = instant(-30000)
	records = append(records, inPlace, bare, sessions)
	var rev agrenting.Revision
	for _, rec := range records {
		rev = mustSave(t, s, rec, rev)
		mustHold(t, s, rec, rev) // members of the record before are gone
	}
}

func testLarge(t *tester, s agrenting.KeyStore) {
	first, second := large(), large()
	rev := mustSave(t, s, first, "")
	mustHold(t, s, first, rev)
	rev = mustSave(t, s, second, rev)
	mustHold(t, s, second, rev)
	rev = mustSave(t, s, small(3), rev)
	rev = mustSave(t, s, first, rev)
	mustHold(t, s, first, rev)
}

func testStale(t *tester, s agrenting.KeyStore) {
	stale := mustSave(t, s, small(1), "")
	rec := full(2, 0)
	rev := mustSave(t, s, rec, stale)
	_, err := s.Save(t.Context(), small(3), stale)
	mustConflict(t, err)
	mustHold(t, s, rec, rev)
	_, err = s.Save(t.Context(), small(3), "")
	mustConflict(t, err)
	mustHold(t, s, rec, rev)
	mustSave(t, s, small(3), rev) // the right one still does
}

func testInvented(t *tester, s agrenting.KeyStore) {
	rec := small(1)
	rev := mustSave(t, s, rec, "")
	for _, invented := range []agrenting.Revision{"0", "-1", "99999999999999999999999", "not a revision", " " + rev, rev + rev} {
		_, err := s.Save(t.Context(), small(2), invented)
		mustConflict(t, err)
	}
	mustHold(t, s, rec, rev)
}

func testRevisionsAreUnique(t *tester, s agrenting.KeyStore) {
	a, b := small(1), small(2)
	seen := map[agrenting.Revision]int{}
	var rev agrenting.Revision
	for i, rec := range []agrenting.KeyRecord{a, a, b, a, b, b} {
		rev = mustSave(t, s, rec, rev)
		if before, ok := seen[rev]; ok {
			t.Fatalf("save %d gives the revision of save %d: a writer who has missed what was in between cannot tell", i, before)
		}
		seen[rev] = i
		mustHold(t, s, rec, rev)
	}
}

func testConcurrentSaves(t *tester, s agrenting.KeyStore) {
	rev := mustSave(t, s, small(1), "")
	for round := range 3 {
		handles := make([]agrenting.KeyStore, writers)
		for i := range handles {
			handles[i] = s
		}
		rev = race(t, handles, uint64(round+2), rev)
	}
}

// race has all handles save over one revision. One must win, and have been
// told so.
func race(t *tester, handles []agrenting.KeyStore, generation uint64, rev agrenting.Revision) agrenting.Revision {
	t.Helper()
	records := make([]agrenting.KeyRecord, len(handles))
	revs := make([]agrenting.Revision, len(handles))
	errs := make([]error, len(handles))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, s := range handles {
		records[i] = small(generation)
		wg.Go(func() {
			<-start
			revs[i], errs[i] = s.Save(t.Context(), records[i], rev)
		})
	}
	close(start)
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err != nil:
			mustConflict(t, err)
		case winner >= 0:
			t.Fatalf("%d and %d have both replaced revision %q", winner, i, rev)
		default:
			winner = i
		}
	}
	if winner < 0 {
		t.Fatalf("nobody has replaced revision %q: %v", rev, errors.Join(errs...))
	}
	for _, s := range handles {
		mustHold(t, s, records[winner], revs[winner])
	}
	return revs[winner]
}

func testConcurrentLoads(t *tester, s agrenting.KeyStore) {
	records := make([]agrenting.KeyRecord, 20)
	for i := range records {
		records[i] = full(uint64(i), i)
	}
	rev := mustSave(t, s, records[0], "")
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for last := uint64(0); ; {
				rec, _, err := s.Load(t.Context())
				switch {
				case err != nil:
					t.Errorf("Load while another saves: %v", err)
					return
				case rec.Generation < last || rec.Generation >= uint64(len(records)):
					t.Errorf("generation %d was loaded after %d", rec.Generation, last)
					return
				}
				if d := difference(records[rec.Generation], rec); d != "" {
					t.Errorf("a mixture of records was loaded: %s", d)
					return
				}
				last = rec.Generation
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	defer wg.Wait()
	defer close(done)
	for _, rec := range records[1:] {
		rev = mustSave(t, s, rec, rev)
	}
}

func testCopies(t *tester, s agrenting.KeyStore) {
	want := full(1, 0)
	given := full(1, 0)
	given.Current, given.Pending, given.Previous, given.Intent.Lifeline = want.Current, want.Pending, want.Previous, want.Intent.Lifeline
	rev := mustSave(t, s, given, "")
	spoil(given)
	mustHold(t, s, want, rev)
	rec, _, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	spoil(rec)
	mustHold(t, s, want, rev)
}

// spoil changes what a record refers to.
func spoil(rec agrenting.KeyRecord) {
	clear(rec.Ancestors)
	clear(rec.Intent.Known)
	*rec.Intent = agrenting.Intent{Key: "spoiled"}
}

func testCancelled(t *tester, s agrenting.KeyStore) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	refused := func(what string, err error) {
		t.Helper()
		switch {
		case err == nil:
			t.Errorf("%s succeeds although the context is over", what)
		case errors.Is(err, agrenting.ErrNoCredential) || errors.Is(err, agrenting.ErrConflictingWrite):
			t.Errorf("%s: %v; that is not why", what, err)
		}
	}
	_, _, err := s.Load(cancelled)
	refused("Load of an empty store", err)
	_, err = s.Save(cancelled, small(1), "")
	refused("Save to an empty store", err)
	mustBeEmpty(t, s)
	rec := small(1)
	rev := mustSave(t, s, rec, "")
	_, _, err = s.Load(cancelled)
	refused("Load", err)
	_, err = s.Save(cancelled, small(2), rev)
	refused("Save", err)
	mustHold(t, s, rec, rev)
}

func testPrinting(t *tester, s agrenting.KeyStore) {
	rec := full(1, 0)
	secrets := secretsOf(rec)
	rev := mustSave(t, s, rec, "")
	_, conflict := s.Save(t.Context(), full(2, 1), "")
	mustConflict(t, conflict)
	loaded, _, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, cancelled := s.Load(over)
	for name, v := range map[string]any{
		"the record":                   loaded,
		"the revision":                 rev,
		"the error of a conflict":      conflict,
		"the error of a cancellation":  cancelled,
		"the store":                    describe(s),
		"a struct with the record":     struct{ rec agrenting.KeyRecord }{loaded},
		"a pointer to the record":      &loaded,
		"the record among other words": []any{"x", loaded},
	} {
		if leaks(printed(v), secrets) {
			t.Errorf("%s shows a secret when it is printed", name)
		}
	}
}

// describe is how a store prints itself. Stores that do not are not looked
// into: what they hold may be in use.
func describe(s agrenting.KeyStore) any {
	switch s.(type) {
	case fmt.Formatter, fmt.Stringer, fmt.GoStringer, slog.LogValuer:
		return s
	default:
		return nil
	}
}

// printed is a value in every way that programs print.
func printed(v any) string {
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	if j, err := json.Marshal(v); err == nil {
		b.Write(j)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("printed", "value", v)
	}
	return strings.ToValidUTF8(b.String(), "")
}
