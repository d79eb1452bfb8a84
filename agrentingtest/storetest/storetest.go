// Package storetest checks implementations of [agrenting.KeyStore] and
// [agrenting.SessionStore] against what the SDK relies on, and makes stores fail
// on purpose.
//
// A test of a store is one call. Where the state is outside of the process, use
// [TestSharedStore], which opens it several times:
//
//	func TestConformance(t *testing.T) {
//		storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
//			folder := t.TempDir() // a new, empty place for each call
//			return func() agrenting.KeyStore { return mystore.Open(folder) }
//		})
//	}
//
// and [TestStore] where it is not:
//
//	storetest.TestStore(t, func(t *testing.T) agrenting.KeyStore { return mystore.New() })
//
// The suites need nothing but the standard library. Their subtests run one
// after the other, each with a store of its own.
package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go"
)

// patience bounds each subtest, however slow the store.
const patience = time.Minute

// TestStore runs the conformance suite for a KeyStore. open makes a store that
// is empty and shares its state with no other; it is called once for each
// subtest, may register cleanups, and fails t if it cannot.
//
// A store that is also an [agrenting.KeyWatcher] is tested as such.
func TestStore(t *testing.T, open func(t *testing.T) agrenting.KeyStore) {
	t.Helper()
	for _, c := range storeCases {
		t.Run(c.name, func(t *testing.T) {
			c.run(newTester(t), open(t))
		})
	}
	t.Run("watch", func(t *testing.T) {
		if _, ok := open(t).(agrenting.KeyWatcher); !ok {
			t.Log("the store is no KeyWatcher, there is nothing to test")
			return
		}
		for _, c := range watchCases {
			t.Run(c.name, func(t *testing.T) {
				w, ok := open(t).(agrenting.KeyWatcher)
				if !ok {
					t.Fatal("this time, the store is no KeyWatcher")
				}
				c.run(newTester(t), w)
			})
		}
	})
}

// TestSharedStore is [TestStore] for stores whose state is outside of the
// process. fresh makes a place that is empty, and returns a function that opens
// a store on it. What it opens is used at the same time, like the stores of
// different processes, so the suite also checks that they see and respect each
// other.
func TestSharedStore(t *testing.T, fresh func(t *testing.T) func() agrenting.KeyStore) {
	t.Helper()
	TestStore(t, func(t *testing.T) agrenting.KeyStore {
		t.Helper()
		return fresh(t)()
	})
	t.Run("shared", func(t *testing.T) {
		for _, c := range sharedCases {
			t.Run(c.name, func(t *testing.T) {
				c.run(newTester(t), fresh(t))
			})
		}
	})
}

// tester is a test with a context that ends with it, or before it hangs.
type tester struct {
	*testing.T
	ctx context.Context //nolint:containedctx // in place of the test's own
}

func newTester(t *testing.T) *tester {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &tester{T: t, ctx: ctx}
}

// Context hides that of the test.
func (t *tester) Context() context.Context { return t.ctx }
