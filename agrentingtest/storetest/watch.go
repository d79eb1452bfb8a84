package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

// soon is how long a change may take to be noticed, and a goroutine to end. A
// run of little time does not spend all of it on one wait.
func (t *tester) soon() time.Duration {
	d := 10 * time.Second
	if end, ok := t.Deadline(); ok {
		d = min(d, time.Until(end)/4)
	}
	return d
}

type watchCase struct {
	name string
	run  func(t *tester, s agrenting.KeyWatcher)
}

var watchCases = []watchCase{
	{"it begins with the present record", testWatchBegins},
	{"it waits for the first record", testWatchEmpty},
	{"it yields changes", testWatchChanges},
	{"it ends with its context", testWatchEnds},
	{"it ends when the loop is left", testWatchBreak},
	{"it ends at once under a cancelled context", testWatchCancelled},
	{"it can be begun again", testWatchAgain},
	{"what it yields are copies", testWatchCopies},
	{"many watch at once", testWatchMany},
}

func testWatchBegins(t *tester, s agrenting.KeyWatcher) {
	rec := full(7, 0)
	mustSave(t, s, rec, "")
	w := watch(t, s)
	if d := difference(rec, w.await(t, 7)); d != "" {
		t.Errorf("the record differs from what was saved: %s", d)
	}
	w.stop(t)
}

func testWatchEmpty(t *tester, s agrenting.KeyWatcher) {
	w := watch(t, s)
	select {
	case got := <-w.yields:
		t.Fatalf("an empty store yields generation %d, error %v", got.rec.Generation, got.err)
	case <-time.After(50 * time.Millisecond):
	}
	mustSave(t, s, small(3), "")
	w.await(t, 3)
	w.stop(t)
}

func testWatchChanges(t *tester, s agrenting.KeyWatcher) {
	rev := mustSave(t, s, small(1), "")
	w := watch(t, s)
	w.await(t, 1)
	for generation := uint64(2); generation < 5; generation++ {
		rec := full(generation, int(generation))
		rev = mustSave(t, s, rec, rev)
		if d := difference(rec, w.await(t, generation)); d != "" {
			t.Errorf("the record differs from what was saved: %s", d)
		}
	}
	// Of changes in quick succession the last one has to come, and none after
	// a later one.
	for generation := uint64(5); generation < 25; generation++ {
		rev = mustSave(t, s, small(generation), rev)
	}
	w.await(t, 24)
	w.stop(t)
}

func testWatchEnds(t *tester, s agrenting.KeyWatcher) {
	watch(t, s).stop(t) // while it is empty
	mustSave(t, s, small(1), "")
	w := watch(t, s)
	w.await(t, 1)
	w.stop(t) // while it waits for a change
}

func testWatchBreak(t *tester, s agrenting.KeyWatcher) {
	rev := mustSave(t, s, small(1), "")
	w := newWatching(t.Context())
	left := make(chan struct{})
	w.do(func(ctx context.Context) {
		defer close(left)
		for _, err := range s.Watch(ctx) {
			if err != nil {
				t.Errorf("Watch yields the error %v", err)
			}
			return
		}
	})
	select {
	case <-left:
	case <-time.After(t.soon()):
		t.Fatal("the present record was not yielded")
	}
	w.mustBeGone(t) // although its context goes on
	mustSave(t, s, small(2), rev)
}

func testWatchCancelled(t *tester, s agrenting.KeyWatcher) {
	mustSave(t, s, small(1), "")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	watchWithin(cancelled, t, s).stop(t)
}

func testWatchAgain(t *tester, s agrenting.KeyWatcher) {
	rev := mustSave(t, s, small(1), "")
	seq := s.Watch(t.Context())
	for generation := uint64(1); generation < 4; generation++ {
		for rec, err := range seq {
			if err != nil || rec.Generation != generation {
				t.Fatalf("the sequence begins with generation %d, error %v; want %d", rec.Generation, err, generation)
			}
			break
		}
		rev = mustSave(t, s, small(generation+1), rev)
	}
}

func testWatchCopies(t *tester, s agrenting.KeyWatcher) {
	rec := full(1, 0)
	rev := mustSave(t, s, rec, "")
	a, b := watch(t, s), watch(t, s)
	spoil(a.await(t, 1))
	if d := difference(rec, b.await(t, 1)); d != "" {
		t.Errorf("what one watcher does to a record shows in another's: %s", d)
	}
	mustHold(t, s, rec, rev)
	a.stop(t)
	b.stop(t)
}

func testWatchMany(t *tester, s agrenting.KeyWatcher) {
	var all []*watching
	for range writers {
		all = append(all, watch(t, s))
	}
	all[0].stop(t)
	rev := mustSave(t, s, small(1), "")
	mustSave(t, s, small(2), rev)
	for _, w := range all[1:] {
		w.await(t, 2)
		w.stop(t)
	}
}

// watching is a Watch in a goroutine of its own. The goroutine has a label,
// which those that it starts inherit: so it can be seen whether one is left.
type watching struct {
	label  string
	ctx    context.Context //nolint:containedctx // what it ends with
	cancel context.CancelFunc
	yields chan yielded
	seen   uint64
}

type yielded struct {
	rec agrenting.KeyRecord
	err error
}

const labelName = "storetest"

func newWatching(ctx context.Context) *watching {
	w := &watching{label: rand.Text(), yields: make(chan yielded)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w
}

func (w *watching) do(f func(ctx context.Context)) {
	go pprof.Do(w.ctx, pprof.Labels(labelName, w.label), f)
}

func watch(t *tester, s agrenting.KeyWatcher) *watching {
	t.Helper()
	return watchWithin(t.Context(), t, s)
}

func watchWithin(ctx context.Context, t *tester, s agrenting.KeyWatcher) *watching {
	t.Helper()
	w := newWatching(ctx)
	t.Cleanup(w.cancel)
	w.do(func(ctx context.Context) {
		defer close(w.yields)
		for rec, err := range s.Watch(ctx) {
			select {
			case w.yields <- yielded{rec, err}:
			case <-ctx.Done():
			}
		}
	})
	return w
}

// await waits for a generation. Earlier ones may be passed over, but must not
// come after later ones.
func (w *watching) await(t *tester, generation uint64) agrenting.KeyRecord {
	t.Helper()
	timeout := time.After(t.soon())
	for {
		select {
		case got, ok := <-w.yields:
			switch {
			case !ok:
				t.Fatalf("the sequence ended before generation %d", generation)
			case got.err != nil:
				t.Fatalf("Watch yields the error %v", got.err)
			case got.rec.Generation < w.seen || got.rec.Generation > generation:
				t.Fatalf("Watch yields generation %d after %d", got.rec.Generation, w.seen)
			}
			w.seen = got.rec.Generation
			if w.seen == generation {
				return got.rec
			}
		case <-timeout:
			t.Fatalf("generation %d was saved, and Watch does not yield it", generation)
		}
	}
}

// stop ends the context, and fails the test unless the sequence ends with it
// and leaves nothing behind.
func (w *watching) stop(t *tester) {
	t.Helper()
	w.cancel()
	timeout := time.After(t.soon())
	for {
		select {
		case got, ok := <-w.yields:
			if !ok {
				w.mustBeGone(t)
				return
			}
			if got.err == nil && got.rec.Current.IsZero() {
				t.Error("the sequence ends with a record that is empty")
			}
		case <-timeout:
			t.Fatal("the sequence does not end with its context")
		}
	}
}

func (w *watching) mustBeGone(t *tester) {
	t.Helper()
	for end := time.Now().Add(t.soon()); ; <-time.After(5 * time.Millisecond) {
		left := w.goroutines()
		if left == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("Watch has left a goroutine behind:\n%s", left)
		}
	}
}

// goroutines are those that carry the label.
func (w *watching) goroutines() string {
	var b bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		return fmt.Sprintf("the goroutines could not be listed: %v", err)
	}
	for g := range strings.SplitSeq(b.String(), "\n\n") {
		if strings.Contains(g, w.label) {
			return g
		}
	}
	return ""
}
