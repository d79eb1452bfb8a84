package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
)

// soon is how long a watcher may take to yield a change, and a goroutine may take
// to end. It is shorter if the test run has little time left.
func (t *tester) soon() time.Duration {
	d := 20 * time.Second
	if end, ok := t.Deadline(); ok {
		d = min(d, time.Until(end)/4)
	}
	return d
}

var watchCases = []testCase{
	{name: "first value is the record", run: testWatchRecord},
	{name: "first value is ErrNoRecord", run: testWatchMissing},
	{name: "empty record", run: testWatchEmptyRecord},
	{name: "changes", run: testWatchChanges},
	{name: "newest after a burst", run: testWatchBurst},
	{name: "deletion", run: testWatchDeletion, needs: needsDelete},
	{name: "other names", run: testWatchOtherNames},
	{name: "ends with its context", run: testWatchEnds},
	{name: "ends when the loop is left", run: testWatchBreak},
	{name: "ends at once with a canceled context", run: testWatchCanceled},
	{name: "starts again", run: testWatchAgain},
	{name: "data is copied", run: testWatchCopies},
	{name: "many watchers", run: testWatchMany},
	{name: "unreachable place", run: testWatchUnreachable, needs: needsUnreachable},
}

// watchers opens one handle for saving and one for watching.
func (t *tester) watchers() (agrenting.Store, agrenting.Watcher) {
	t.Helper()
	a, b := t.pair()
	w, ok := b.(agrenting.Watcher)
	if !ok {
		t.Fatal("open does not always return a Watcher")
	}
	return a, w
}

// numbered returns data that begins with a number, which shows watchers the order
// of the records.
func numbered(n int) []byte { return fmt.Appendf(nil, "%d %s", n, rand.Text()) }

func numberOf(data []byte) (n int) {
	if _, err := fmt.Sscanf(string(data), "%d ", &n); err != nil {
		return -1
	}
	return n
}

func testWatchRecord(t *tester) {
	s, watcher := t.watchers()
	name, data := newName(), numbered(7)
	rev := mustSave(t, s, name, data, "")
	w := watch(t, watcher, name)
	got := w.next(t)
	if got.err != nil || difference(data, got.rec.Data) != "" || got.rec.Revision != rev {
		t.Fatalf("the first value is not the record that was saved: %v, error %v", got.rec, got.err)
	}
	mustSave(t, s, name, numbered(8), got.rec.Revision)
	w.await(t, 8)
	w.stop(t)
}

func testWatchMissing(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	w := watch(t, watcher, name)
	w.awaitMissing(t)
	rev := mustSave(t, s, name, numbered(3), "")
	if rec := w.await(t, 3); rec.Revision != rev {
		t.Fatalf("Watch yields the revision %q, and Save returned %q", rec.Revision, rev)
	}
	w.stop(t)
}

func testWatchEmptyRecord(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	rev := mustSave(t, s, name, nil, "")
	w := watch(t, watcher, name)
	got := w.next(t)
	if got.err != nil || len(got.rec.Data) != 0 || got.rec.Revision != rev {
		t.Fatalf("the first value is not the empty record that was saved: %v, error %v", got.rec, got.err)
	}
	w.stop(t)
}

func testWatchChanges(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	rev := mustSave(t, s, name, numbered(1), "")
	w := watch(t, watcher, name)
	w.await(t, 1)
	for n := 2; n < 6; n++ {
		data := numbered(n)
		rev = mustSave(t, s, name, data, rev)
		rec := w.await(t, n)
		if d := difference(data, rec.Data); d != "" {
			t.Fatalf("the data differs from what was saved: %s", d)
		}
		if rec.Revision != rev {
			t.Fatalf("Watch yields the revision %q, and Save returned %q", rec.Revision, rev)
		}
	}
	w.stop(t)
}

func testWatchBurst(t *tester) {
	const last = 20
	s, watcher := t.watchers()
	name := newName()
	rev := mustSave(t, s, name, numbered(1), "")
	busy, idle := watch(t, watcher, name), watch(t, watcher, name)
	busy.await(t, 1) // then reads nothing during the burst
	idle.await(t, 1)
	idle.collect(t, last)
	for n := 2; n <= last; n++ {
		rev = mustSave(t, s, name, numbered(n), rev)
	}
	busy.await(t, last)
	busy.stop(t)
	if err := <-idle.collected; err != nil {
		t.Fatal(err)
	}
	idle.stop(t)
}

func testWatchDeletion(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	w := watch(t, watcher, name)
	w.awaitMissing(t)
	for n := 1; n < 4; n++ {
		mustSave(t, s, name, numbered(n), "")
		w.await(t, n)
		t.suite.remove(t.T, s, name)
		w.awaitMissing(t)
	}
	w.stop(t)
}

func testWatchOtherNames(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	rev := mustSave(t, s, name, numbered(1), "")
	w := watch(t, watcher, name)
	w.await(t, 1)
	for _, other := range []string{name + "x", name + ".x", name + "-x", "a." + name, newName()} {
		o := watch(t, watcher, other)
		o.awaitMissing(t)
		mustSave(t, s, other, numbered(100), "")
		o.await(t, 100)
		o.stop(t)
		w.mustNotChange(t, 10*time.Millisecond)
	}
	mustSave(t, s, name, numbered(2), rev)
	w.await(t, 2)
	w.stop(t)
}

func testWatchEnds(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	w := watch(t, watcher, name)
	w.awaitMissing(t)
	w.stop(t) // there is no record yet
	mustSave(t, s, name, numbered(1), "")
	w = watch(t, watcher, name)
	w.await(t, 1)
	w.stop(t) // it waits for a change
}

func testWatchBreak(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	rev := mustSave(t, s, name, numbered(1), "")
	w := newWatching(t.Context())
	defer w.cancel()
	left := make(chan error, 1)
	w.do(func(ctx context.Context) {
		err := errors.New("nothing")
		for _, err = range watcher.Watch(ctx, name) {
			break
		}
		left <- err
	})
	select {
	case err := <-left:
		if err != nil {
			t.Fatalf("Watch yields the error: %v", err)
		}
	case <-time.After(t.soon()):
		t.Fatal("the loop has ended after the first value, but Watch does not return")
	}
	w.mustBeGone(t) // the context has not ended
	mustSave(t, s, name, numbered(2), rev)
}

func testWatchCanceled(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	mustSave(t, s, name, numbered(1), "")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	watchWithin(canceled, t, watcher, name).stop(t)
}

func testWatchAgain(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	rev := mustSave(t, s, name, numbered(1), "")
	seq := watcher.Watch(t.Context(), name)
	for n := 1; n < 4; n++ {
		first := true
		for rec, err := range seq {
			if err != nil || numberOf(rec.Data) != n {
				t.Fatalf("the sequence starts with record %d, error %v; want record %d", numberOf(rec.Data), err, n)
			}
			first = false
			break
		}
		if first {
			t.Fatal("the sequence cannot be started again")
		}
		rev = mustSave(t, s, name, numbered(n+1), rev)
	}
}

func testWatchCopies(t *tester) {
	s, watcher := t.watchers()
	name, data := newName(), numbered(1)
	rev := mustSave(t, s, name, data, "")
	a, b := watch(t, watcher, name), watch(t, watcher, name)
	spoil(a.await(t, 1).Data)
	if d := difference(data, b.await(t, 1).Data); d != "" {
		t.Fatalf("two watchers share the data of a record: %s", d)
	}
	mustHold(t, s, name, data, rev)
	a.stop(t)
	b.stop(t)
}

func testWatchMany(t *tester) {
	s, watcher := t.watchers()
	name := newName()
	var all []*watching
	for range writers {
		w := watch(t, watcher, name)
		w.awaitMissing(t)
		all = append(all, w)
	}
	all[0].stop(t)
	rev := mustSave(t, s, name, numbered(1), "")
	mustSave(t, s, name, numbered(2), rev)
	for _, w := range all[1:] {
		w.await(t, 2)
		w.stop(t)
	}
}

func testWatchUnreachable(t *tester) {
	s, cut, restore := t.suite.unreachable(t.T)
	watcher, ok := s.(agrenting.Watcher)
	if !ok {
		t.Fatal("the store of Unreachable is not a Watcher, but the store of open is")
	}
	name := newName()
	rev := mustSave(t, s, name, numbered(1), "")
	w := watch(t, watcher, name)
	w.await(t, 1)
	cut()
	w.mustFailAndEnd(t)             // a watcher that was waiting
	mustWatchFail(t, watcher, name) // a watcher that starts now
	restore()
	for end := time.Now().Add(t.soon()); ; {
		w = watch(t, watcher, name)
		got := w.next(t)
		if got.err == nil {
			if numberOf(got.rec.Data) != 1 || got.rec.Revision != rev {
				t.Fatalf("after an outage, Watch yields record %d; want 1", numberOf(got.rec.Data))
			}
			w.stop(t)
			return
		}
		mustFail(t, "Watch after an outage", got.err)
		if time.Now().After(end) {
			t.Fatalf("Watch still fails after an outage: %v", got.err)
		}
		w.stop(t)
		<-time.After(20 * time.Millisecond)
	}
}

// mustWatchFail fails the test unless Watch yields only an error.
func mustWatchFail(t *tester, watcher agrenting.Watcher, name string) {
	t.Helper()
	watch(t, watcher, name).mustFailAndEnd(t)
}

// watching is a Watch in a separate goroutine. The goroutine has a label that its
// child goroutines inherit, so that the test finds any of them that do not end.
type watching struct {
	label     string
	ctx       context.Context //nolint:containedctx // what it ends with
	cancel    context.CancelFunc
	yields    chan yielded
	collected chan error
	seen      int // the number of the newest record so far
}

type yielded struct {
	rec agrenting.Record
	err error
}

func newWatching(ctx context.Context) *watching {
	w := &watching{label: rand.Text(), yields: make(chan yielded), collected: make(chan error, 1)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w
}

func (w *watching) do(f func(ctx context.Context)) {
	go pprof.Do(w.ctx, pprof.Labels("storetest", w.label), f)
}

func watch(t *tester, s agrenting.Watcher, name string) *watching {
	t.Helper()
	return watchWithin(t.Context(), t, s, name)
}

func watchWithin(ctx context.Context, t *tester, s agrenting.Watcher, name string) *watching {
	t.Helper()
	w := newWatching(ctx)
	t.Cleanup(w.cancel)
	w.do(func(ctx context.Context) {
		defer close(w.yields)
		for rec, err := range s.Watch(ctx, name) {
			select {
			case w.yields <- yielded{rec, err}:
			case <-ctx.Done():
			}
		}
	})
	return w
}

// next waits for the next value.
func (w *watching) next(t *tester) yielded {
	t.Helper()
	select {
	case got, ok := <-w.yields:
		if !ok {
			t.Fatal("the sequence ended, although its context has not")
		}
		return got
	case <-time.After(t.soon()):
		t.Fatal("Watch yields nothing")
	}
	return yielded{}
}

// await waits for the record with a number. Earlier records may be skipped or
// repeated, but must not come after later ones.
func (w *watching) await(t *tester, n int) agrenting.Record {
	t.Helper()
	rec, err := w.until(t, n)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func (w *watching) until(t *tester, n int) (agrenting.Record, error) {
	timeout := time.After(t.soon())
	for {
		select {
		case got, ok := <-w.yields:
			switch {
			case !ok:
				return agrenting.Record{}, fmt.Errorf("the sequence ended before record %d", n)
			case errors.Is(got.err, agrenting.ErrNoRecord) && w.seen == 0:
				continue // repeated
			case got.err != nil:
				return agrenting.Record{}, fmt.Errorf("Watch yields an error instead of record %d: %w", n, got.err)
			}
			number := numberOf(got.rec.Data)
			if number < w.seen || number > n {
				return agrenting.Record{}, fmt.Errorf("Watch yields record %d after %d, while waiting for %d", number, w.seen, n)
			}
			w.seen = number
			if number == n {
				return got.rec, nil
			}
		case <-timeout:
			return agrenting.Record{}, fmt.Errorf("record %d was saved, but Watch does not yield it", n)
		}
	}
}

// mustNotChange fails the test if Watch yields anything within d except the
// record that it has yielded last.
func (w *watching) mustNotChange(t *tester, d time.Duration) {
	t.Helper()
	for timeout := time.After(d); ; {
		select {
		case got, ok := <-w.yields:
			if !ok || got.err != nil || numberOf(got.rec.Data) != w.seen {
				t.Fatalf("Watch yields %v, error %v, after a change of another record", got.rec, got.err)
			}
		case <-timeout:
			return
		}
	}
}

// collect reads all values up to the record with a number, in the background.
func (w *watching) collect(t *tester, n int) {
	t.Helper()
	go func() {
		_, err := w.until(t, n)
		w.collected <- err
	}()
}

// awaitMissing waits for ErrNoRecord. Before it, Watch may repeat the last
// record.
func (w *watching) awaitMissing(t *tester) {
	t.Helper()
	for {
		got := w.next(t)
		switch {
		case errors.Is(got.err, agrenting.ErrNoRecord):
			if len(got.rec.Data) > 0 || got.rec.Revision != "" {
				t.Fatalf("Watch yields ErrNoRecord together with %v", got.rec)
			}
			w.seen = 0
			return
		case got.err != nil:
			t.Fatalf("Watch yields the error %v; want ErrNoRecord", got.err)
		case w.seen == 0 || numberOf(got.rec.Data) != w.seen:
			t.Fatalf("Watch yields %v, but there is no record", got.rec)
		}
	}
}

// stop cancels the context. It fails the test unless the sequence then ends and
// no goroutine remains.
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
			if got.err == nil && got.rec.Revision == "" {
				t.Fatal("the sequence ends with a record without a revision")
			}
		case <-timeout:
			t.Fatal("the sequence does not end with its context")
		}
	}
}

// mustFailAndEnd fails the test unless the sequence yields an error and then
// ends.
func (w *watching) mustFailAndEnd(t *tester) {
	t.Helper()
	got := w.next(t)
	mustFail(t, "Watch of a place that cannot be reached", got.err)
	select {
	case got, ok := <-w.yields:
		if ok {
			t.Fatalf("Watch continues after its error, with %v, error %v", got.rec, got.err)
		}
	case <-time.After(t.soon()):
		t.Fatal("Watch yields an error, but does not end")
	}
	w.mustBeGone(t)
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

// goroutines returns the stack of a goroutine with the label.
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
