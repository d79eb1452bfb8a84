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

// Operation is a call of a method of the store that [Faulty] returns, such as the
// first save of the record "key": Operation{Kind: Save, Name: "key"}. Most plans
// only read Kind and Nth.
type Operation struct {
	// Index counts all operations from 0, and Nth counts those of the same kind from
	// 0. In a plan inside [Only], they count only the operations on that record.
	Index, Nth int
	Kind       Kind
	// Name is the name of the record.
	Name string
	// Data and Previous are the arguments of a save. They are zero for a load.
	Data     []byte
	Previous agrenting.Revision
}

// Fault is a failure of an operation. The zero value has no effect.
type Fault struct {
	delay    time.Duration
	before   error
	after    error
	conflict bool
}

// FailBefore makes an operation fail with err before it has any effect.
func FailBefore(err error) Fault { return Fault{before: err} }

// FailAfter performs the operation and then fails with err: a save has taken
// effect, but its response was lost.
func FailAfter(err error) Fault { return Fault{after: err} }

// Conflict makes another writer save first. That writer saves the current data
// again, so that the record has a new revision and a save fails until the record
// is loaded again. If there is no record, the save fails anyway. Conflict has no
// effect on a load.
func Conflict() Fault { return Fault{conflict: true} }

// Delay delays an operation. If the context ends first, the operation fails.
func Delay(d time.Duration) Fault { return Fault{delay: d} }

// Delayed returns f with a delay before it.
func (f Fault) Delayed(d time.Duration) Fault {
	f.delay = d
	return f
}

// Plan returns the fault for each operation. It is called for one operation at a
// time, in the order of their indexes.
type Plan func(Operation) Fault

// Script returns a plan with faults by index, which counts all operations from 0.
func Script(faults map[int]Fault) Plan {
	return func(op Operation) Fault { return faults[op.Index] }
}

// OnSave returns a plan with faults for saves, which it counts from 0. Loads do
// not fail.
func OnSave(faults map[int]Fault) Plan { return on(Save, faults) }

// OnLoad returns a plan with faults for loads, which it counts from 0. Saves do
// not fail.
func OnLoad(faults map[int]Fault) Plan { return on(Load, faults) }

func on(k Kind, faults map[int]Fault) Plan {
	return func(op Operation) Fault {
		if op.Kind != k {
			return Fault{}
		}
		return faults[op.Nth]
	}
}

// Only restricts a plan to the record with a name, such as "key". The plan counts
// only the operations on that record. Do not use the returned plan for more than
// one store.
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

// Faulty returns a store that fails according to plan, and otherwise behaves like
// store. It is an [agrenting.Watcher] if store is one; Watch does not fail. To
// observe a store, use a plan that returns no faults.
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

// next calls the plan.
func (f *faulty) next(op Operation) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan(f.count.number(op))
}

// begin applies the delay and the failure that come before the operation itself.
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

// comeFirst saves as another writer.
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
