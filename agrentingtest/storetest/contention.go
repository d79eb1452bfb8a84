package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
)

var contentionCases = []testCase{
	{name: "one of many first saves wins", run: testFirstSaveRace},
	{name: "one of many saves wins", run: testRace},
	{name: "no update is lost", run: testNoUpdateIsLost},
	{name: "no update is lost or doubled by interrupted saves", run: testInterruptedSaves},
}

func testFirstSaveRace(t *tester) {
	handles := t.handles(writers)
	for range 3 {
		race(t, handles, newName(), "")
	}
}

func testRace(t *tester) {
	handles := t.handles(writers)
	name := newName()
	rev := mustSave(t, handles[0], name, someData(), "")
	for range 5 {
		rev = race(t, handles, name, rev)
	}
}

// race makes two goroutines for each handle save with the same previous revision.
// Exactly one of them must succeed, and all handles must load its data.
func race(t *tester, handles []agrenting.Store, name string, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	n := 2 * len(handles)
	data := make([][]byte, n)
	revs := make([]agrenting.Revision, n)
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		data[i] = someData()
		wg.Go(func() {
			<-start
			revs[i], errs[i] = handles[i/2].Save(t.Context(), name, data[i], previous)
		})
	}
	close(start)
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err != nil:
			mustConflict(t, revs[i], err)
		case winner >= 0:
			t.Fatalf("two of %d writers have replaced the revision %q", n, previous)
		default:
			winner = i
		}
	}
	if winner < 0 {
		t.Fatalf("none of %d writers has replaced the revision %q: %v", n, previous, errors.Join(errs...))
	}
	for _, s := range handles {
		mustHold(t, s, name, data[winner], revs[winner])
	}
	return revs[winner]
}

func testNoUpdateIsLost(t *tester) {
	runLog(t, func() time.Duration { return 0 })
}

func testInterruptedSaves(t *tester) {
	s := t.handles(1)[0]
	began := time.Now()
	const samples = 4
	for range samples {
		mustSave(t, s, newName(), someData(), "")
	}
	usual := max(time.Since(began)/samples, 10*time.Microsecond)
	for range 10 {
		testLateSave(t, s, mathrand.N(3*usual)) // #nosec G404 -- not a secret
		if t.Failed() {
			return
		}
	}
	var n atomic.Int64
	runLog(t, func() time.Duration {
		if n.Add(1)%3 == 0 {
			return 0 // lets the other writers make progress
		}
		return mathrand.N(3 * usual) // #nosec G404 -- not a secret
	})
}

// testLateSave interrupts a save after a time. The save may or may not take effect,
// but not after the next save.
func testLateSave(t *tester, s agrenting.Store, after time.Duration) {
	t.Helper()
	name := newName()
	rev := mustSave(t, s, name, someData(), "")
	ctx, cancel := context.WithTimeout(t.Context(), after)
	defer cancel()
	if _, err := s.Save(ctx, name, someData(), rev); err == nil {
		return
	}
	last := someData()
	for n := 1; ; n++ {
		rec, err := s.Load(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Save(t.Context(), name, last, rec.Revision)
		if err == nil {
			break
		}
		if !errors.Is(err, agrenting.ErrConflictingWrite) || n == 10 {
			t.Fatal(err) // the interrupted save may have caused one conflict
		}
	}
	<-time.After(5 * time.Millisecond)
	rec, err := s.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rec.Data, last) {
		t.Fatal("a save that was interrupted took effect after a later save")
	}
}

// runLog makes writers append the IDs of their updates to one record, while other
// goroutines read it. An update interrupts its save after the time that interrupt
// returns, or does not interrupt it for 0. After any error, the writer loads the
// record again and searches it for its ID. At the end, the record must have each ID
// once.
func runLog(t *tester, interrupt func() time.Duration) {
	t.Helper()
	const each = 6
	handles := t.handles(writers / 2)
	l := &sharedLog{name: newName(), interrupt: interrupt, revisions: map[agrenting.Revision]bool{}}
	var ids []string
	var working, reading sync.WaitGroup
	done := make(chan struct{})
	for i := range writers {
		var own []string
		for range each {
			own = append(own, rand.Text())
		}
		ids = append(ids, own...)
		working.Go(func() {
			for _, id := range own {
				if err := l.append(t.Context(), handles[i%len(handles)], id); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for _, s := range handles[:2] {
		reading.Go(func() {
			for {
				if _, err := l.load(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
	}
	working.Wait()
	<-time.After(20 * time.Millisecond) // waits for interrupted saves that take effect late
	close(done)
	reading.Wait()
	if t.Failed() {
		return
	}
	rec, err := l.load(t.Context(), t.reopened(handles[0]))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		switch n := strings.Count(string(rec.Data), id); n {
		case 1:
		case 0:
			t.Fatal("an update is lost: its save succeeded, or it was found in the record before")
		default:
			t.Fatalf("an update was applied %d times", n)
		}
	}
	if n := strings.Count(string(rec.Data), "\n"); n != len(ids) {
		t.Fatalf("%d writers have made %d updates, and the record has %d", writers, len(ids), n)
	}
}

// sharedLog is a record that only grows: each update is appended.
type sharedLog struct {
	name      string
	interrupt func() time.Duration

	mu        sync.Mutex
	newest    []byte // the longest log that any goroutine has loaded or saved
	revisions map[agrenting.Revision]bool
}

// append appends an update. It retries after each conflict with another writer.
func (l *sharedLog) append(ctx context.Context, s agrenting.Store, id string) error {
	for range 1000 {
		rec, err := l.load(ctx, s)
		if err != nil {
			return err
		}
		if strings.Contains(string(rec.Data), id) {
			return nil // the save succeeded in spite of its error
		}
		err = l.save(ctx, s, append(rec.Data, id+"\n"...), rec.Revision)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, errRecurred) {
			return err
		}
	}
	return errors.New("1000 saves in a row failed, although the record was loaded before each")
}

var errRecurred = errors.New("a revision was returned twice")

func (l *sharedLog) save(ctx context.Context, s agrenting.Store, data []byte, previous agrenting.Revision) error {
	limit := l.interrupt()
	limited, cancel := ctx, context.CancelFunc(func() {})
	if limit > 0 {
		limited, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	rev, err := s.Save(limited, l.name, data, previous)
	if err != nil {
		if limit == 0 && !errors.Is(err, agrenting.ErrConflictingWrite) {
			return fmt.Errorf("Save under contention: %w", err)
		}
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revisions[rev] {
		return fmt.Errorf("%w: %q", errRecurred, rev)
	}
	l.revisions[rev] = true
	if len(data) > len(l.newest) {
		l.newest = data
	}
	return nil
}

// load loads the log. It fails if the log does not begin with the longest log that was
// known when the load began.
func (l *sharedLog) load(ctx context.Context, s agrenting.Store) (agrenting.Record, error) {
	l.mu.Lock()
	before := l.newest
	l.mu.Unlock()
	rec, err := s.Load(ctx, l.name)
	switch {
	case errors.Is(err, agrenting.ErrNoRecord) && len(before) == 0:
		return agrenting.Record{}, nil
	case err != nil:
		return agrenting.Record{}, fmt.Errorf("Load while others save: %w", err)
	case !bytes.HasPrefix(rec.Data, before):
		return agrenting.Record{}, errors.New("Load returns a record that is older than one loaded or saved before it, or not whole")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(rec.Data) > len(l.newest) {
		l.newest = bytes.Clone(rec.Data)
	}
	return rec, nil
}
