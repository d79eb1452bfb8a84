package storetest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
)

// Kind is a method of a store.
type Kind string

// The kinds of operations.
const (
	Load Kind = "load"
	Save Kind = "save"
)

// Operation is a call of a store that [Faulty] has made.
type Operation struct {
	// Index counts all operations from 0, Nth those of the same kind. In a plan
	// under [Only], they count the operations on that record.
	Index, Nth int
	Kind       Kind
	// Name is the name of the record.
	Name string
	// Data and Previous are what is to be saved; zero for a load.
	Data     []byte
	Previous agrenting.Revision
}

// Fault is what happens to an operation. The zero value does nothing.
type Fault struct {
	delay    time.Duration
	before   error
	after    error
	conflict bool
}

// FailBefore fails with err before anything is done.
func FailBefore(err error) Fault { return Fault{before: err} }

// FailAfter does the operation and fails with err nevertheless: a save has taken
// effect, and its response was lost.
func FailAfter(err error) Fault { return Fault{after: err} }

// Conflict lets another writer come first. It saves the current data again, so
// that the record has a new revision and a save fails until the record is loaded
// again. If there is no record, the save fails without one. Conflict does nothing
// to a load.
func Conflict() Fault { return Fault{conflict: true} }

// Delay waits before anything is done. If the context ends first, the operation
// fails.
func Delay(d time.Duration) Fault { return Fault{delay: d} }

// Delayed returns f after a delay.
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

// Only restricts a plan to the record of one name, such as "key". The plan counts
// the operations on that record alone. Each use needs its own Only.
func Only(name string, plan Plan) Plan {
	var c counter
	return func(op Operation) Fault {
		if op.Name != name {
			return Fault{}
		}
		return plan(c.number(op))
	}
}

// counter numbers operations.
type counter struct {
	index int
	nth   map[Kind]int
}

func (c *counter) number(op Operation) Operation {
	if c.nth == nil {
		c.nth = map[Kind]int{}
	}
	op.Index, op.Nth = c.index, c.nth[op.Kind]
	c.index++
	c.nth[op.Kind]++
	return op
}

// Faulty returns a store that fails by plan, and otherwise does what store does.
// It is an [agrenting.Watcher] if store is one; Watch does not fail. A plan that
// returns no faults can be used to observe a store.
func Faulty(store agrenting.Store, plan Plan) agrenting.Store {
	f := &faulty{inner: store, plan: plan}
	if w, ok := store.(agrenting.Watcher); ok {
		return &faultyWatcher{faulty: f, watcher: w}
	}
	return f
}

type faulty struct {
	inner agrenting.Store

	mu    sync.Mutex
	plan  Plan
	count counter
}

// next asks the plan.
func (f *faulty) next(op Operation) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan(f.count.number(op))
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

func (f *faulty) Load(ctx context.Context, name string) (agrenting.Record, error) {
	fault := f.next(Operation{Kind: Load, Name: name})
	if err := fault.begin(ctx); err != nil {
		return agrenting.Record{}, err
	}
	rec, err := f.inner.Load(ctx, name)
	if err == nil && fault.after != nil {
		return agrenting.Record{}, fault.after
	}
	return rec, err
}

func (f *faulty) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	fault := f.next(Operation{Kind: Save, Name: name, Data: bytes.Clone(data), Previous: previous})
	if err := fault.begin(ctx); err != nil {
		return "", err
	}
	if fault.conflict {
		if err := f.comeFirst(ctx, name); err != nil {
			return "", err
		}
	}
	rev, err := f.inner.Save(ctx, name, data, previous)
	if err == nil && fault.after != nil {
		return "", fault.after
	}
	return rev, err
}

// comeFirst is another writer.
func (f *faulty) comeFirst(ctx context.Context, name string) error {
	rec, err := f.inner.Load(ctx, name)
	if err != nil {
		return fmt.Errorf("%w: by plan", agrenting.ErrConflictingWrite)
	}
	_, err = f.inner.Save(ctx, name, rec.Data, rec.Revision)
	return err
}

type faultyWatcher struct {
	*faulty

	watcher agrenting.Watcher
}

func (f *faultyWatcher) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return f.watcher.Watch(ctx, name)
}
