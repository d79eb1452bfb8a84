// Package storetest has a conformance suite for implementations of
// [agrenting.Store], and a wrapper that makes stores fail on demand.
//
// Test a store with one call:
//
//	func TestConformance(t *testing.T) {
//		folder := t.TempDir()
//		storetest.Test(t, func(t *testing.T) agrenting.Store { return mystore.Open(folder) })
//	}
//
// The suite needs only the standard library.
package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go"
)

const (
	// patience is the time limit of each subtest, for slow stores.
	patience = 2 * time.Minute
	// writers is the number of goroutines that write at the same time.
	writers = 8
	// maxName and maxSize are the limits that [agrenting.Store] documents.
	maxName = 63
	maxSize = 64 << 10
)

// Option adds checks to [Test].
type Option func(*suite)

// Gone checks that a store reports an error, and not a missing record, if its
// place is gone. open returns a store whose folder, table, or volume existed and
// was removed.
func Gone(open func(t *testing.T) agrenting.Store) Option {
	return func(s *suite) { s.gone = open }
}

// Delete checks deletions. remove deletes a record by name from a store that the
// suite has opened, as another program would do it.
func Delete(remove func(t *testing.T, s agrenting.Store, name string)) Option {
	return func(s *suite) { s.remove = remove }
}

// Unreachable checks the behavior while a store cannot be reached. open returns a
// working store. cut makes its place unreachable, and restore makes it reachable
// again.
func Unreachable(open func(t *testing.T) (s agrenting.Store, cut, restore func())) Option {
	return func(s *suite) { s.unreachable = open }
}

// ReadOnly checks that a store without write access returns ErrReadOnlyStore.
// open returns such a store.
func ReadOnly(open func(t *testing.T) agrenting.Store) Option {
	return func(s *suite) { s.readOnly = open }
}

// LongestName sets the maximum length of record names. The default is 63
// characters. A store from [agrenting.Namespace] has a lower maximum.
func LongestName(n int) Option {
	return func(s *suite) { s.longest = n }
}

// Test runs the conformance suite. open returns a new handle for the place under
// test. It may register cleanups, and it fails t if it cannot open the place. It
// is called several times. If all handles share one place, like the handles of
// several processes, the suite also tests them against each other. If each call
// opens a new place, the suite logs that and uses one handle at a time.
//
// The place need not be empty. The suite uses new random names for its records,
// and the name "aux". If the store is an [agrenting.Watcher], Watch is tested
// too. Subtests run one after the other.
func Test(t *testing.T, open func(t *testing.T) agrenting.Store, opts ...Option) {
	t.Helper()
	s := &suite{open: open, longest: maxName}
	for _, opt := range opts {
		opt(s)
	}
	s.detect(t)
	for _, group := range [][]testCase{storeCases, contentionCases, optionCases} {
		for _, c := range group {
			s.run(t, c)
		}
	}
	if _, ok := open(t).(agrenting.Watcher); !ok {
		t.Log("the store is not a Watcher: Watch is not tested")
		return
	}
	t.Run("watch", func(t *testing.T) {
		for _, c := range watchCases {
			s.run(t, c)
		}
	})
}

// suite is one call of Test.
type suite struct {
	open           func(t *testing.T) agrenting.Store
	shared         bool // the handles share one place
	longest        int
	gone, readOnly func(t *testing.T) agrenting.Store
	remove         func(t *testing.T, s agrenting.Store, name string)
	unreachable    func(t *testing.T) (s agrenting.Store, cut, restore func())
}

// testCase is a subtest. If needs is set, the subtest runs only if needs returns
// "".
type testCase struct {
	name  string
	run   func(t *tester)
	needs func(s *suite) (missing string)
}

func (s *suite) run(t *testing.T, c testCase) {
	t.Helper()
	if c.needs != nil {
		if missing := c.needs(s); missing != "" {
			t.Logf("not tested: %s (%s)", c.name, missing)
			return
		}
	}
	t.Run(c.name, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		t.Cleanup(cancel)
		c.run(&tester{T: t, ctx: ctx, suite: s})
	})
}

// detect determines whether handles share one place. A handle that was opened
// before the first save must load that record too.
func (s *suite) detect(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name := newName()
	saver, before := s.open(t), s.open(t)
	loads := func(h agrenting.Store) bool {
		rec, err := h.Load(ctx, name)
		if err != nil && !errors.Is(err, agrenting.ErrNoRecord) {
			t.Fatalf("Load of a record that is missing or was just saved: %v", err)
		}
		return err == nil && string(rec.Data) == name
	}
	if loads(before) {
		t.Fatal("Load returns a record that was never saved")
	}
	if _, err := saver.Save(ctx, name, []byte(name), ""); err != nil {
		t.Fatalf("Save of the first record: %v", err)
	}
	if !loads(saver) {
		t.Fatal("a record that was saved cannot be loaded through the same handle")
	}
	early, late := loads(before), loads(s.open(t))
	if early != late {
		t.Fatalf("a saved record is seen by a handle that was opened before: %t, after: %t; want both or neither", early, late)
	}
	if s.shared = early; !s.shared {
		t.Log("each call of open opens a new place: handles are not tested against each other")
	}
}

// tester is a test with a context that ends when the test ends, or at the time
// limit.
type tester struct {
	*testing.T

	ctx   context.Context //nolint:containedctx // replaces that of the test
	suite *suite
}

// Context replaces the method of the test.
func (t *tester) Context() context.Context { return t.ctx }

// handles opens n handles for one place. If handles do not share a place, it
// returns the same handle n times.
func (t *tester) handles(n int) []agrenting.Store {
	t.Helper()
	all := make([]agrenting.Store, n)
	for i := range all {
		if i == 0 || t.suite.shared {
			all[i] = t.suite.open(t.T)
			continue
		}
		all[i] = all[0]
	}
	return all
}

// pair opens two handles for one place.
func (t *tester) pair() (a, b agrenting.Store) {
	t.Helper()
	all := t.handles(2)
	return all[0], all[1]
}

// reopened opens another handle for the place of s, or returns s if handles do
// not share a place.
func (t *tester) reopened(s agrenting.Store) agrenting.Store {
	t.Helper()
	if t.suite.shared {
		return t.suite.open(t.T)
	}
	return s
}

// newName returns a unique name.
func newName() string { return "test-" + strings.ToLower(rand.Text()) }
