package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go"
)

// TestSessionStore runs the conformance suite for a SessionStore. open makes a
// store that is empty and shares its state with no other; it is called once for
// each subtest. See [TestSharedSessionStore] for stores whose state is outside
// of the process.
func TestSessionStore(t *testing.T, open func(t *testing.T) agrenting.SessionStore) {
	t.Helper()
	TestSharedSessionStore(t, func(t *testing.T) func() agrenting.SessionStore {
		t.Helper()
		s := open(t)
		return func() agrenting.SessionStore { return s }
	})
}

// TestSharedSessionStore is [TestSessionStore] for stores whose state is outside
// of the process. fresh makes a place that is empty, and returns a function that
// opens a store on it. What it opens is used at the same time, like the stores
// of different processes.
func TestSharedSessionStore(t *testing.T, fresh func(t *testing.T) func() agrenting.SessionStore) {
	t.Helper()
	for _, c := range sessionCases {
		t.Run(c.name, func(t *testing.T) {
			c.run(newTester(t), fresh(t))
		})
	}
}

var sessionCases = []struct {
	name string
	run  func(t *tester, open func() agrenting.SessionStore)
}{
	{"an empty store has no record", testNoSession},
	{"what is saved is loaded", testSessionRoundTrip},
	{"each id has its record", testSessionIDs},
	{"records are copies", testSessionCopies},
	{"one at a time holds a lock", testSessionLock},
	{"each id has its lock", testSessionLocks},
	{"loading does not wait for the lock", testSessionLoadIsFree},
	{"the wait for a lock ends with its context", testSessionLockWait},
}

// sessionID is an id of the kind that the SDK makes.
func sessionID(n int) string { return strings.Repeat(strconv.FormatInt(int64(n%16), 16), 32) }

func lockSession(t *tester, s agrenting.SessionStore, id string) (unlock func()) {
	t.Helper()
	unlock, err := s.LockSession(t.Context(), id)
	if err != nil {
		t.Fatalf("LockSession: %v", err)
	}
	return unlock
}

func saveSession(t *tester, s agrenting.SessionStore, id string, b []byte) {
	t.Helper()
	unlock := lockSession(t, s, id)
	defer unlock()
	if err := s.SaveSession(t.Context(), id, b); err != nil {
		t.Fatalf("SaveSession: %v", err)
	}
}

func mustHaveSession(t *tester, s agrenting.SessionStore, id string, want []byte) {
	t.Helper()
	b, err := s.LoadSession(t.Context(), id)
	switch {
	case err != nil:
		t.Errorf("LoadSession: %v", err)
	case want == nil && b != nil:
		t.Errorf("LoadSession gives %d bytes, want nil, since there is no record", len(b))
	case !bytes.Equal(want, b):
		t.Errorf("LoadSession gives %d bytes that differ from the %d that were saved", len(b), len(want))
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, says crypto/rand
	return b
}

func testNoSession(t *tester, open func() agrenting.SessionStore) {
	s := open()
	mustHaveSession(t, s, sessionID(1), nil)
	unlock := lockSession(t, s, sessionID(1))
	mustHaveSession(t, s, sessionID(1), nil) // a lock is no record
	unlock()
	mustHaveSession(t, open(), sessionID(1), nil)
}

func testSessionRoundTrip(t *tester, open func() agrenting.SessionStore) {
	a, b := open(), open()
	for _, record := range [][]byte{random(300), {0}, []byte("\x00\xff\r\n\"'"), random(16 << 10), random(10)} {
		saveSession(t, a, sessionID(1), record)
		mustHaveSession(t, a, sessionID(1), record)
		mustHaveSession(t, b, sessionID(1), record)
		a, b = b, a
	}
	mustHaveSession(t, open(), sessionID(2), nil)
}

func testSessionIDs(t *tester, open func() agrenting.SessionStore) {
	s := open()
	records := make([][]byte, 5)
	for i := range records {
		records[i] = random(100)
		saveSession(t, s, sessionID(i), records[i])
	}
	for i, record := range records {
		mustHaveSession(t, s, sessionID(i), record)
	}
}

func testSessionCopies(t *tester, open func() agrenting.SessionStore) {
	s := open()
	record := random(100)
	given := bytes.Clone(record)
	saveSession(t, s, sessionID(1), given)
	clear(given)
	mustHaveSession(t, s, sessionID(1), record)
	loaded, err := s.LoadSession(t.Context(), sessionID(1))
	if err != nil {
		t.Fatal(err)
	}
	clear(loaded)
	mustHaveSession(t, s, sessionID(1), record)
}

// testSessionLock counts in a record. Without the lock, steps get lost.
func testSessionLock(t *tester, open func() agrenting.SessionStore) {
	const processes, each = 8, 10
	var wg sync.WaitGroup
	for range processes {
		s := open()
		wg.Go(func() {
			for range each {
				if err := count(t.Context(), s); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustHaveSession(t, open(), sessionID(1), []byte(strconv.Itoa(processes*each)))
}

func count(ctx context.Context, s agrenting.SessionStore) error {
	unlock, err := s.LockSession(ctx, sessionID(1))
	if err != nil {
		return err
	}
	defer unlock()
	b, err := s.LoadSession(ctx, sessionID(1))
	if err != nil {
		return err
	}
	n := 0
	if b != nil {
		if n, err = strconv.Atoi(string(b)); err != nil {
			return err
		}
	}
	<-time.After(time.Millisecond) // room for whoever is not kept out
	return s.SaveSession(ctx, sessionID(1), []byte(strconv.Itoa(n+1)))
}

func testSessionLocks(t *tester, open func() agrenting.SessionStore) {
	s := open()
	unlocks := make([]func(), 4)
	for i := range unlocks {
		unlocks[i] = lockSession(t, s, sessionID(i))
	}
	saveSession(t, s, sessionID(5), random(10))
	for _, unlock := range unlocks {
		unlock()
	}
}

func testSessionLoadIsFree(t *tester, open func() agrenting.SessionStore) {
	a, b := open(), open()
	record := random(100)
	saveSession(t, a, sessionID(1), record)
	unlock := lockSession(t, a, sessionID(1))
	defer unlock()
	mustHaveSession(t, a, sessionID(1), record)
	mustHaveSession(t, b, sessionID(1), record)
}

func testSessionLockWait(t *tester, open func() agrenting.SessionStore) {
	a, b := open(), open()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if unlock, err := a.LockSession(cancelled, sessionID(1)); err == nil {
		unlock()
		t.Error("LockSession succeeds although the context is over")
	}
	unlock := lockSession(t, a, sessionID(1))
	for _, s := range []agrenting.SessionStore{a, b} {
		brief, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		if second, err := s.LockSession(brief, sessionID(1)); err == nil {
			second()
			t.Error("two hold the lock")
		}
		cancel()
	}
	taken := make(chan func(), 1)
	go func() {
		second, err := b.LockSession(t.Context(), sessionID(1))
		if err != nil {
			t.Errorf("LockSession after a wait: %v", err)
			second = func() {}
		}
		taken <- second
	}()
	select {
	case second := <-taken:
		second()
		t.Error("two hold the lock")
		return
	case <-time.After(30 * time.Millisecond):
	}
	unlock()
	(<-taken)()
	lockSession(t, a, sessionID(1))() // whoever has waited in vain holds nothing
}
