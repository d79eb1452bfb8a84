package keyringstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/zalando/go-keyring"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

// fake is a keyring in memory. It can be made to fail.
type fake struct {
	mu    sync.Mutex
	items map[string]string
	limit int                            // of an item's bytes; 0: none
	err   error                          // of all operations
	after func(op, account string) error // after an operation took effect
	held  chan struct{}                  // operations wait until it is closed
}

func newFake() *fake { return &fake{items: map[string]string{}} }

func (f *fake) do(op, service, account string, effect func(name string) error) error {
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if held != nil {
		<-held
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	if err := effect(service + "\x00" + account); err != nil {
		return err
	}
	if f.after != nil {
		return f.after(op, account)
	}
	return nil
}

func (f *fake) Get(service, account string) (text string, err error) {
	err = f.do("get", service, account, func(name string) error {
		var ok bool
		if text, ok = f.items[name]; !ok {
			return keyring.ErrNotFound
		}
		return nil
	})
	return text, err
}

func (f *fake) Set(service, account, text string) error {
	return f.do("set", service, account, func(name string) error {
		if f.limit > 0 && len(text) > f.limit {
			return keyring.ErrSetDataTooBig
		}
		f.items[name] = text
		return nil
	})
}

func (f *fake) Delete(service, account string) error {
	return f.do("delete", service, account, func(name string) error {
		if _, ok := f.items[name]; !ok {
			return keyring.ErrNotFound
		}
		delete(f.items, name)
		return nil
	})
}

// names are the accounts that have an item.
func (f *fake) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.items {
		_, account, _ := strings.Cut(name, "\x00")
		names = append(names, account)
	}
	return names
}

func (f *fake) set(account, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.items["program\x00"+account] = text
}

func (f *fake) get(account string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.items["program\x00"+account]
}

// over is a store in a fake keyring.
func over(t *testing.T, f *fake, folder string, limit int) *Store {
	t.Helper()
	s, err := New("program", "agent-1", WithLockFolder(folder))
	require.NoError(t, err)
	s.keyring, s.limit = f, limit
	return s
}

func opened(t *testing.T, limit int) (*fake, *Store) {
	t.Helper()
	f := newFake()
	return f, over(t, f, filepath.Join(t.TempDir(), "locks"), limit)
}

// someRecord is a record with n known ids, by which its size is chosen.
func someRecord(generation uint64, n int) agrenting.KeyRecord {
	rec := agrenting.KeyRecord{
		Generation: generation, Current: agrenting.StoredKey{Credential: agrenting.APIKey("sk_keyring_0123456789"), ID: "key-ä"},
		Intent: &agrenting.Intent{Strategy: agrenting.InPlace},
	}
	for i := range n {
		rec.Intent.Known = append(rec.Intent.Known, fmt.Sprintf("known-ä-%d-%d", generation, i))
	}
	return rec
}

func save(t *testing.T, s *Store, rec agrenting.KeyRecord, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), rec, previous)
	require.NoError(t, err)
	return rev
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"one item": freeItem, "divided when large": boundedItem, "always divided": 101} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
				t.Helper()
				f, folder := newFake(), filepath.Join(t.TempDir(), "locks")
				f.limit = max(limit, 300) // a head may be a little larger than a part
				return func() agrenting.KeyStore { return over(t, f, folder, limit) }
			})
		})
	}
}

func TestConformanceUnderASeal(t *testing.T) {
	t.Parallel()
	storetest.TestSharedStore(t, func(t *testing.T) func() agrenting.KeyStore {
		t.Helper()
		f, folder, key := newFake(), filepath.Join(t.TempDir(), "locks"), agrenting.NewSealingKey()
		f.limit = boundedItem
		return func() agrenting.KeyStore {
			s, err := agrenting.Sealed(over(t, f, folder, boundedItem), key)
			require.NoError(t, err)
			return s
		}
	})
}

func TestSmallRecordIsOneItem(t *testing.T) {
	t.Parallel()
	f, s := opened(t, boundedItem)
	rev := save(t, s, someRecord(1, 0), "")
	save(t, s, someRecord(2, 3), rev)
	assert.Equal(t, []string{"agent-1"}, f.names())
}

func TestPartsOfOldRecordsDoNotStay(t *testing.T) {
	t.Parallel()
	f, s := opened(t, 700)
	rev := save(t, s, someRecord(1, 300), "")
	many := len(f.names())
	assert.Greater(t, many, 5)
	for _, n := range []int{300, 100, 300, 50} {
		rev = save(t, s, someRecord(1, n), rev)
		assert.LessOrEqual(t, len(f.names()), many)
	}
	rev = save(t, s, someRecord(2, 0), rev)
	assert.Equal(t, []string{"agent-1"}, f.names())
	save(t, s, someRecord(3, 300), rev)
	require.NoError(t, s.Remove(t.Context()))
	assert.Empty(t, f.names())
	require.NoError(t, s.Remove(t.Context()), "twice")
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
}

// TestSaveThatDiesLeavesTheOldOrTheNewRecord has a save fail after each of its
// steps.
func TestSaveThatDiesLeavesTheOldOrTheNewRecord(t *testing.T) {
	t.Parallel()
	died := errors.New("died")
	for step := 0; ; step++ {
		f, s := opened(t, 300)
		rev := save(t, s, someRecord(1, 30), "")
		rev = save(t, s, someRecord(2, 60), rev)
		left := step
		f.after = func(string, string) error {
			left--
			if left < 0 {
				return died
			}
			return nil
		}
		_, err := s.Save(t.Context(), someRecord(3, 40), rev)
		f.after = nil
		rec, now, lerr := s.Load(t.Context())
		require.NoError(t, lerr, "step %d", step)
		want := map[bool]agrenting.KeyRecord{true: someRecord(2, 60), false: someRecord(3, 40)}[now == rev]
		require.Equal(t, want.Intent.Known, rec.Intent.Known, "step %d", step)
		require.Equal(t, want.Generation, rec.Generation, "step %d", step)
		next := save(t, s, someRecord(4, 50), now)
		rec, _, lerr = s.Load(t.Context())
		require.NoError(t, lerr)
		require.Equal(t, someRecord(4, 50).Intent.Known, rec.Intent.Known, "step %d", step)
		save(t, s, someRecord(5, 0), next)
		if left >= 0 {
			require.NoError(t, err)
			assert.Greater(t, step, 10, "every step has been tried")
			return
		}
	}
}

func TestMissingKeyringIsSaidLoudly(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	missing := errors.New("the name org.freedesktop.secrets was not provided by any .service files")
	f.err = missing
	_, _, lerr := s.Load(t.Context())
	_, serr := s.Save(t.Context(), someRecord(1, 0), "")
	for _, err := range []error{lerr, serr, s.Remove(t.Context())} {
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, missing)
		require.ErrorContains(t, err, "agrenting.FileStore")
		require.NotErrorIs(t, err, agrenting.ErrNoCredential, "or a seed would be planted")
		require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
	}
}

func TestAdviceKnowsTheSystem(t *testing.T) {
	t.Parallel()
	for system, want := range map[string]string{
		"darwin": "keychain", "windows": "Credential Manager", "linux": "DBUS_SESSION_BUS_ADDRESS", "freebsd": "Secret Service",
	} {
		assert.Contains(t, advice(system), want)
	}
}

func TestTooLargeIsSaid(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	f.limit = 10
	_, err := s.Save(t.Context(), someRecord(1, 0), "")
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "too long")
	assert.NotContains(t, err.Error(), "sk_keyring")

	_, s = opened(t, 2)
	_, err = s.Save(t.Context(), someRecord(1, 100), "")
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "too large")
}

func TestKeyringThatForgetsIsNoticed(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *fake){
		"forgets": func(f *fake) { clear(f.items) },
		"alters":  func(f *fake) { f.items["program\x00agent-1"] += "\n" },
	} {
		f, s := opened(t, freeItem)
		f.after = func(op, _ string) error {
			if op == "set" {
				change(f)
			}
			return nil
		}
		_, err := s.Save(t.Context(), someRecord(1, 0), "")
		require.ErrorIs(t, err, ErrUnavailable, name)
	}
}

func TestForeignItemsAreLeftAlone(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ text, want string }{
		"a password":       {"hunter2-0123456789", "something else"},
		"another format":   {`{"format":2,"revision":"x","record":{}}`, "format 2"},
		"no format":        {`{"revision":"x","record":{}}`, "format 0"},
		"no revision":      {`{"format":1,"record":{}}`, "damaged"},
		"no record":        {`{"format":1,"revision":"x"}`, "damaged"},
		"record cut off":   {`{"format":1,"revision":"x","record":{"version":1}}`, "no current key"},
		"newer record":     {`{"format":1,"revision":"x","record":{"version":9}}`, "version 9"},
		"missing part":     {`{"format":1,"revision":"x","parts":2,"slot":"a"}`, "part 1 of 2 is missing"},
		"absurd parts":     {`{"format":1,"revision":"x","parts":1000000,"slot":"a"}`, "damaged"},
		"negative parts":   {`{"format":1,"revision":"x","parts":-1}`, "damaged"},
		"slot of no store": {`{"format":1,"revision":"x","parts":1,"slot":"c"}`, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, s := opened(t, freeItem)
			f.set("agent-1", tc.text)
			_, _, err := s.Load(t.Context())
			require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrNoCredential)
			assert.NotContains(t, err.Error(), "hunter2")
			_, err = s.Save(t.Context(), someRecord(1, 0), "")
			require.Error(t, err)
			assert.Equal(t, tc.text, f.get("agent-1"))
		})
	}
}

func TestMixedPartsAreNoticed(t *testing.T) {
	t.Parallel()
	f, s := opened(t, 300)
	save(t, s, someRecord(1, 60), "")
	f.set("agent-1 (part a1)", strings.Repeat("x", 300))
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	require.ErrorContains(t, err, "do not belong together")
}

func TestHangingKeyringHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	rev := save(t, s, someRecord(1, 0), "")
	held := make(chan struct{})
	f.mu.Lock()
	f.held = held
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := s.Save(ctx, someRecord(2, 0), rev)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	f.mu.Lock()
	f.held = nil
	f.mu.Unlock()
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, _, err = s.Load(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "who hangs has the lock")
	close(held)
	rec, _, err := s.Load(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 2, rec.Generation, "what was begun was finished under the lock")
}

func TestPanicInTheLibraryIsAnError(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	f.after = func(string, string) error { panic("secret") }
	f.set("agent-1", "x")
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)
	assert.NotContains(t, err.Error(), "secret")
	f.after = nil
	require.NoError(t, s.Remove(t.Context()), "the lock is free")
}

func TestNamesAreChecked(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 201)
	for _, names := range [][2]string{{"", "a"}, {"s", ""}, {"-s", "a"}, {"s", "-a"}, {"s\n", "a"}, {"s", "a\x00"}, {long, "a"}, {"s", long}} {
		_, err := New(names[0], names[1], WithLockFolder(t.TempDir()))
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, "%q", names)
	}
	_, err := New("s", "a", WithLockFolder(""))
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	s, err := New("s", "a", WithLockFolder(t.TempDir()))
	require.NoError(t, err)
	assert.Equal(t, "keyringstore.Store(s, a)", s.String())
	other, err := New("sa", "", WithLockFolder(t.TempDir()))
	require.Error(t, err)
	assert.Nil(t, other)
}

func TestItemIsReadable(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	rev := save(t, s, someRecord(7, 0), "")
	var h head
	require.NoError(t, json.Unmarshal([]byte(f.get("agent-1")), &h))
	assert.Equal(t, string(rev), h.Revision)
	rec, err := agrenting.DecodeKeyRecord(h.Record)
	require.NoError(t, err)
	assert.EqualValues(t, 7, rec.Generation)
}
