package storetest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
)

// Kind is a method of a KeyStore.
type Kind string

// The kinds of operations.
const (
	Load Kind = "load"
	Save Kind = "save"
)

// Operation is a call of a store that [Faulty] has made.
type Operation struct {
	// Index counts all operations from 0, Nth those of the same kind.
	Index, Nth int
	Kind       Kind
	// Record and Previous are what is to be saved; zero for a load.
	Record   agrenting.KeyRecord
	Previous agrenting.Revision
}

// Fault is what happens to an operation. The zero value is no fault.
type Fault struct {
	delay    time.Duration
	before   error
	after    error
	conflict bool
}

// FailBefore fails with err before anything is done.
func FailBefore(err error) Fault { return Fault{before: err} }

// FailAfter does the operation and fails with err even so: a save has taken
// effect, and its answer was lost.
func FailAfter(err error) Fault { return Fault{after: err} }

// Conflict lets another writer come first: the record that is there gets a new
// revision, so that a save fails as it does in earnest, and only a load makes
// good. Where there is no record, the save fails without one. It does nothing
// to a load.
func Conflict() Fault { return Fault{conflict: true} }

// Delay waits before anything is done, or until the context ends, which fails
// the operation.
func Delay(d time.Duration) Fault { return Fault{delay: d} }

// Delayed is f after a wait.
func (f Fault) Delayed(d time.Duration) Fault {
	f.delay = d
	return f
}

// Plan decides about each operation. It is called for one at a time, in the
// order of their indexes.
type Plan func(Operation) Fault

// Script is a plan by index, counting all operations from 0.
func Script(faults map[int]Fault) Plan {
	return func(op Operation) Fault { return faults[op.Index] }
}

// OnSave is a plan for saves, counting them from 0. Loads do not fail.
func OnSave(faults map[int]Fault) Plan { return on(Save, faults) }

// OnLoad is a plan for loads, counting them from 0. Saves do not fail.
func OnLoad(faults map[int]Fault) Plan { return on(Load, faults) }

func on(k Kind, faults map[int]Fault) Plan {
	return func(op Operation) Fault {
		if op.Kind != k {
			return Fault{}
		}
		return faults[op.Nth]
	}
}

// Faulty is a store that fails by plan, and otherwise does what store does. It
// is a [agrenting.KeyWatcher] if store is one; Watch does not fail. A plan that
// never does is a way to listen.
func Faulty(store agrenting.KeyStore, plan Plan) agrenting.KeyStore {
	f := &faulty{inner: store, plan: plan, nth: map[Kind]int{}}
	if w, ok := store.(agrenting.KeyWatcher); ok {
		return &faultyWatcher{faulty: f, watcher: w}
	}
	return f
}

type faulty struct {
	inner agrenting.KeyStore
	plan  Plan

	mu    sync.Mutex
	index int
	nth   map[Kind]int
}

// next asks the plan.
func (f *faulty) next(op Operation) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	op.Index, op.Nth = f.index, f.nth[op.Kind]
	f.index++
	f.nth[op.Kind]++
	return f.plan(op)
}

// begin is what comes before the operation itself.
func (f Fault) begin(ctx context.Context) error {
	if f.delay > 0 {
		t := time.NewTimer(f.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return f.before
}

func (f *faulty) Load(ctx context.Context) (agrenting.KeyRecord, agrenting.Revision, error) {
	fault := f.next(Operation{Kind: Load})
	if err := fault.begin(ctx); err != nil {
		return agrenting.KeyRecord{}, "", err
	}
	rec, rev, err := f.inner.Load(ctx)
	if err == nil && fault.after != nil {
		return agrenting.KeyRecord{}, "", fault.after
	}
	return rec, rev, err
}

func (f *faulty) Save(ctx context.Context, rec agrenting.KeyRecord, previous agrenting.Revision) (agrenting.Revision, error) {
	fault := f.next(Operation{Kind: Save, Record: rec, Previous: previous})
	if err := fault.begin(ctx); err != nil {
		return "", err
	}
	if fault.conflict {
		if err := f.comeFirst(ctx); err != nil {
			return "", err
		}
	}
	rev, err := f.inner.Save(ctx, rec, previous)
	if err == nil && fault.after != nil {
		return "", fault.after
	}
	return rev, err
}

// comeFirst is another writer.
func (f *faulty) comeFirst(ctx context.Context) error {
	rec, rev, err := f.inner.Load(ctx)
	if err != nil {
		return fmt.Errorf("%w: by plan", agrenting.ErrConflictingWrite)
	}
	_, err = f.inner.Save(ctx, rec, rev)
	return err
}

type faultyWatcher struct {
	*faulty
	watcher agrenting.KeyWatcher
}

func (f *faultyWatcher) Watch(ctx context.Context) iter.Seq2[agrenting.KeyRecord, error] {
	return f.watcher.Watch(ctx)
}
