package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

var storeCases = []testCase{
	{name: "missing record", run: testMissing},
	{name: "first save", run: testFirstSave},
	{name: "first save with a revision", run: testFirstSaveWithRevision},
	{name: "empty record", run: testEmptyRecord},
	{name: "sizes and bytes", run: testBytes},
	{name: "stale revision", run: testStale},
	{name: "invented revision", run: testInvented},
	{name: "revisions never recur", run: testRevisionsAreUnique},
	{name: "later handle", run: testReopened},
	{name: "independent names", run: testNames},
	{name: "data is copied", run: testCopies},
	{name: "canceled context", run: testCanceled},
	{name: "printing", run: testPrinting},
}

// mustSave saves or fails the test.
func mustSave(t *tester, s agrenting.Store, name string, data []byte, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), name, data, previous)
	switch {
	case err != nil:
		t.Fatalf("Save over revision %q: %v", previous, err)
	case rev == "":
		t.Fatal("Save returned an empty revision, which means that there is no record")
	case rev == previous:
		t.Fatalf("Save returned the revision %q, which it has replaced", rev)
	}
	return rev
}

// mustHold fails the test unless the store has data at the revision.
func mustHold(t *tester, s agrenting.Store, name string, want []byte, at agrenting.Revision) {
	t.Helper()
	rec, err := s.Load(t.Context(), name)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	if d := difference(want, rec.Data); d != "" {
		t.Fatalf("the data differs from what was saved: %s", d)
	}
	if rec.Revision != at {
		t.Fatalf("Load returns the revision %q, and Save returned %q", rec.Revision, at)
	}
}

// mustBeMissing fails the test unless there is no record.
func mustBeMissing(t *tester, s agrenting.Store, name string) {
	t.Helper()
	rec, err := s.Load(t.Context(), name)
	switch {
	case !errors.Is(err, agrenting.ErrNoRecord):
		t.Fatalf("Load of a missing record: error %v; want one that matches ErrNoRecord", err)
	case errors.Is(err, agrenting.ErrConflictingWrite):
		t.Fatalf("Load of a missing record: %v; it also matches ErrConflictingWrite", err)
	case rec.Revision != "":
		t.Fatalf("a missing record has the revision %q; want none", rec.Revision)
	case len(rec.Data) > 0:
		t.Fatalf("a missing record has %d bytes of data", len(rec.Data))
	}
}

// mustConflict fails the test unless err is a lost compare-and-swap.
func mustConflict(t *tester, rev agrenting.Revision, err error) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatalf("Save succeeded with revision %q; want an error that matches ErrConflictingWrite", rev)
	case !errors.Is(err, agrenting.ErrConflictingWrite):
		t.Fatalf("Save: %v; want an error that matches ErrConflictingWrite", err)
	case errors.Is(err, agrenting.ErrNoRecord):
		t.Fatalf("Save: %v; it also matches ErrNoRecord, which is for Load", err)
	case rev != "":
		t.Fatalf("Save returned the revision %q with its error", rev)
	}
}

// difference describes how two records differ, without their content.
func difference(want, got []byte) string {
	if bytes.Equal(want, got) {
		return ""
	}
	n := 0
	for n < min(len(want), len(got)) && want[n] == got[n] {
		n++
	}
	return fmt.Sprintf("%d bytes instead of %d, different from byte %d on", len(got), len(want), n)
}

// someData returns data that is different from that of all other records.
func someData() []byte { return []byte("data " + rand.Text()) }

func testMissing(t *tester) {
	a, b := t.pair()
	name := newName()
	mustBeMissing(t, a, name)
	mustBeMissing(t, b, name)
	mustBeMissing(t, a, name) // a load must not create a record
}

func testFirstSave(t *tester) {
	a, b := t.pair()
	name, data := newName(), someData()
	rev := mustSave(t, a, name, data, "")
	mustHold(t, a, name, data, rev)
	mustHold(t, b, name, data, rev)
	for _, s := range []agrenting.Store{a, b} {
		again, err := s.Save(t.Context(), name, someData(), "")
		mustConflict(t, again, err)
		again, err = s.Save(t.Context(), name, data, "") // the same data again
		mustConflict(t, again, err)
	}
	mustHold(t, b, name, data, rev)
	data = someData()
	rev = mustSave(t, b, name, data, rev) // with the revision that the other handle returned
	mustHold(t, a, name, data, rev)
}

func testFirstSaveWithRevision(t *tester) {
	a, b := t.pair()
	name := newName()
	for _, previous := range []agrenting.Revision{"1", "0", "-1", "not a revision"} {
		rev, err := a.Save(t.Context(), name, someData(), previous)
		mustConflict(t, rev, err)
	}
	mustBeMissing(t, b, name)
	rev := mustSave(t, b, newName(), someData(), "") // the revision of another record
	got, err := a.Save(t.Context(), name, someData(), rev)
	mustConflict(t, got, err)
	mustBeMissing(t, b, name)
}

func testEmptyRecord(t *tester) {
	a, b := t.pair()
	for _, empty := range [][]byte{nil, {}} {
		name := newName()
		rev := mustSave(t, a, name, empty, "")
		mustHold(t, b, name, nil, rev)
		again, err := b.Save(t.Context(), name, someData(), "")
		mustConflict(t, again, err) // an empty record is different from a missing one
		rev = mustSave(t, b, name, someData(), rev)
		rev = mustSave(t, a, name, empty, rev)
		mustHold(t, b, name, nil, rev)
	}
}

func testBytes(t *tester) {
	a, b := t.pair()
	var all [256]byte
	for i := range all {
		all[i] = byte(i)
	}
	name := newName()
	var rev agrenting.Revision
	check := func(what string, data []byte) {
		t.Helper()
		var err error
		if rev, err = a.Save(t.Context(), name, bytes.Clone(data), rev); err != nil {
			t.Fatalf("Save of %s: %v", what, err)
		}
		rec, err := b.Load(t.Context(), name)
		if err != nil {
			t.Fatalf("Load of %s: %v", what, err)
		}
		if d := difference(data, rec.Data); d != "" {
			t.Fatalf("%s: the data differs from what was saved: %s", what, d)
		}
	}
	for _, text := range []string{
		"\n", "\r\n", "x\n", "x\n\n", "\nx", "x\r", " x ", "\x00", "x\x00", "x\x00\x00", "\x00x", "a\x00b", "\xef\xbb\xbfx",
		"\xff\xfe", "\xc3\x28", "ä€\U0001f600", "null", "{}", `"quoted"`, `\n`, "'", "%s%d", "$HOME `x`", "<a&b>", string(all[:]),
	} {
		check(fmt.Sprintf("the text %q", text[:min(20, len(text))]), []byte(text))
	}
	for _, size := range []int{1, 2, 255, 256, 1000, 4095, 4096, 4097, 10_000, maxSize / 2, maxSize - 1, maxSize} {
		data := make([]byte, size)
		_, _ = rand.Read(data) // never fails
		check(fmt.Sprintf("%d random bytes", size), data)
	}
	check("64 KiB of zeros", make([]byte, maxSize))
	check("a small record after a large one", []byte("x"))
}

func testStale(t *tester) {
	a, b := t.pair()
	name, data := newName(), someData()
	stale := mustSave(t, a, name, someData(), "")
	rev := mustSave(t, b, name, data, stale)
	for _, s := range []agrenting.Store{a, b} {
		for _, previous := range []agrenting.Revision{stale, ""} {
			got, err := s.Save(t.Context(), name, someData(), previous)
			mustConflict(t, got, err)
			mustHold(t, a, name, data, rev)
			mustHold(t, b, name, data, rev)
		}
	}
	mustSave(t, a, name, someData(), rev) // the current revision is still valid
}

func testInvented(t *tester) {
	a, b := t.pair()
	name, data := newName(), someData()
	rev := mustSave(t, a, name, data, "")
	other := mustSave(t, a, newName(), data, "")
	invented := []agrenting.Revision{
		"0", "-1", "99999999999999999999999", "not a revision", " " + rev, rev + " ", rev + rev, "0" + rev, rev + ".0", "+" + rev, rev + "\n",
	}
	if other != rev { // revisions of different records may be equal
		invented = append(invented, other)
	}
	for _, previous := range invented {
		got, err := b.Save(t.Context(), name, someData(), previous)
		mustConflict(t, got, err)
	}
	mustHold(t, a, name, data, rev)
}

func testRevisionsAreUnique(t *tester) {
	first, second := t.pair()
	a, b := someData(), someData()
	name := newName()
	seen := map[agrenting.Revision]int{}
	var rev agrenting.Revision
	for i, data := range [][]byte{a, a, b, a, b, b, nil, nil, a} {
		s := first
		if i%2 == 1 {
			s = second
		}
		rev = mustSave(t, s, name, data, rev)
		if before, ok := seen[rev]; ok {
			t.Fatalf("save %d returned the revision of save %d", i, before)
		}
		seen[rev] = i
		mustHold(t, first, name, data, rev)
	}
}

func testReopened(t *tester) {
	s := t.handles(1)[0]
	name, data := newName(), someData()
	rev := mustSave(t, s, name, data, "")
	s = t.reopened(s)
	mustHold(t, s, name, data, rev)
	got, err := s.Save(t.Context(), name, someData(), "")
	mustConflict(t, got, err)
	data = someData()
	rev = mustSave(t, s, name, data, rev)
	mustHold(t, t.reopened(s), name, data, rev)
}

func testNames(t *tester) {
	a, b := t.pair()
	base := newName()
	longest := base + strings.Repeat("x", max(0, t.suite.longest-len(base)))
	names := []string{
		base, base + "x", base + "-x", base + ".x", base + ".x.y", base + ".x-y", "x." + base, "a." + base, "0." + base,
		"aux." + base, "con." + base, base + ".aux", base + ".lock", base + ".tmp", base + ".json", base + ".record",
		longest[:len(longest)-1], longest, longest[:len(longest)-1] + "y", "aux",
	}
	data := make([][]byte, len(names))
	revs := make([]agrenting.Revision, len(names))
	for i, name := range names {
		data[i] = someData()
		rec, err := a.Load(t.Context(), name)
		switch {
		case name == "aux" && err == nil: // another test has created the record
			revs[i] = rec.Revision
		case !errors.Is(err, agrenting.ErrNoRecord):
			t.Fatalf("Load of %q, which was not saved: error %v; want one that matches ErrNoRecord", name, err)
		}
		rev, err := a.Save(t.Context(), name, data[i], revs[i])
		if err != nil {
			t.Fatalf("Save of %q: %v", name, err)
		}
		revs[i] = rev
	}
	for i, name := range names {
		data[i] = someData()
		var err error
		if revs[i], err = b.Save(t.Context(), name, data[i], revs[i]); err != nil {
			t.Fatalf("Save of %q, after other records were saved: %v", name, err)
		}
	}
	for i, name := range names {
		rec, err := a.Load(t.Context(), name)
		if err != nil || rec.Revision != revs[i] || !bytes.Equal(rec.Data, data[i]) {
			t.Fatalf("after other records were saved, %q is not what was saved (error %v)", name, err)
		}
	}
}

func testCopies(t *tester) {
	a, b := t.pair()
	name, want := newName(), someData()
	given := append(bytes.Clone(want), "spare"...)[:len(want)]
	rev := mustSave(t, a, name, given, "")
	spoil(given)
	mustHold(t, a, name, want, rev)
	mustHold(t, b, name, want, rev)
	for _, s := range []agrenting.Store{a, b} {
		rec, err := s.Load(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		spoil(rec.Data)
		mustHold(t, a, name, want, rev)
		mustHold(t, b, name, want, rev)
	}
}

// spoil overwrites data up to its capacity.
func spoil(data []byte) { clear(data[:cap(data)]) }

func testCanceled(t *tester) {
	s, other := t.pair()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for what, ctx := range map[string]context.Context{"is canceled": canceled, "is past its deadline": late} {
		refused := func(op string, err error) {
			t.Helper()
			switch {
			case err == nil:
				t.Fatalf("%s succeeded although the context %s", op, what)
			case errors.Is(err, agrenting.ErrNoRecord) || errors.Is(err, agrenting.ErrConflictingWrite):
				t.Fatalf("%s: %v; want the reason, because the context %s", op, err, what)
			}
		}
		name := newName()
		_, err := s.Load(ctx, name)
		refused("Load of a missing record", err)
		_, err = s.Save(ctx, name, someData(), "")
		refused("Save of a new record", err)
		_, err = s.Save(ctx, name, someData(), "stale")
		refused("Save over a stale revision", err)
		mustBeMissing(t, other, name)
		data := someData()
		rev := mustSave(t, s, name, data, "")
		_, err = s.Load(ctx, name)
		refused("Load", err)
		_, err = s.Save(ctx, name, someData(), rev)
		refused("Save", err)
		mustHold(t, other, name, data, rev)
	}
	// A context that ends after Save has returned has no effect.
	ctx, cancel := context.WithCancel(t.Context())
	name, data := newName(), someData()
	rev, err := s.Save(ctx, name, data, "")
	cancel()
	if err != nil {
		t.Fatalf("Save: %v", err)
	}
	mustHold(t, other, name, data, rev)
}

func testPrinting(t *tester) {
	s := t.handles(1)[0]
	name, data := newName(), []byte("secret"+rand.Text())
	_, missing := s.Load(t.Context(), name)
	rev := mustSave(t, s, name, data, "")
	_, conflict := s.Save(t.Context(), name, append([]byte("new "), data...), "stale")
	loaded, err := s.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, canceled := s.Save(over, name, data, rev)
	for what, v := range map[string]any{
		"the record":                      loaded,
		"a pointer to the record":         &loaded,
		"a slice with the record":         []any{"x", loaded},
		"the revision":                    rev,
		"the error of a missing record":   missing,
		"the error of a conflict":         conflict,
		"the error of a canceled context": canceled,
	} {
		if leaks(printed(v, "%v", "%+v", "%#v", "%s", "%q", "%x", "%d"), data) {
			t.Errorf("%s shows the data when it is printed", what)
		}
	}
	if leaks(printed(describe(s), "%v", "%+v", "%s", "%q"), data) {
		t.Error("the store shows the data when it is printed")
	}
}

// describe returns a store that implements a printing method. Other stores are not
// printed, because fmt would read fields that are in use.
func describe(s agrenting.Store) any {
	switch s.(type) {
	case fmt.Formatter, fmt.Stringer, fmt.GoStringer, slog.LogValuer:
		return s
	default:
		return nil
	}
}

// printed returns a value in the forms in which programs print it.
func printed(v any, verbs ...string) string {
	var b bytes.Buffer
	for _, verb := range verbs {
		fmt.Fprintf(&b, verb+"\n", v)
	}
	if j, err := json.Marshal(v); err == nil {
		b.Write(j)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("printed", "value", v)
	}
	return b.String()
}

// leaks reports whether text contains data in one of the forms in which Go prints
// bytes.
func leaks(text string, data []byte) bool {
	list := strings.Trim(fmt.Sprintf("%d", data), "[]")
	for _, form := range []string{string(data), hex.EncodeToString(data), list, base64.StdEncoding.EncodeToString(data)} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}
