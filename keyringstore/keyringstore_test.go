package keyringstore

import (
	"context"
	"encoding/json"
	"errors"
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

func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
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

// someData returns n bytes, text and others.
func someData(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return append([]byte("sk_keyring_0123456789"), data...)
}

const (
	key     = "key"
	account = "agent-1 key" // of its item
)

func save(t *testing.T, s *Store, data []byte, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), key, data, previous)
	require.NoError(t, err)
	return rev
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"one item": 2 * freeItem, "divided when large": boundedItem, "always divided": 800} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, folder := newFake(), filepath.Join(t.TempDir(), "locks")
			f.limit = limit
			storetest.Test(t, func(t *testing.T) agrenting.Store {
				t.Helper()
				return over(t, f, folder, limit)
			}, storetest.Delete(func(t *testing.T, s agrenting.Store, name string) {
				t.Helper()
				require.NoError(t, s.(*Store).Remove(t.Context(), name)) //nolint:forcetypeassert,errcheck // it is
			}), storetest.Unreachable(func(t *testing.T) (agrenting.Store, func(), func()) {
				t.Helper()
				f, s := opened(t, limit)
				return s, func() { f.fail(errors.New("locked")) }, func() { f.fail(nil) }
			}), storetest.Gone(func(t *testing.T) agrenting.Store {
				t.Helper()
				f, s := opened(t, limit)
				f.fail(errors.New("no such collection"))
				return s
			}))
		})
	}
}

func TestSealedStoreConforms(t *testing.T) {
	t.Parallel()
	f, folder, seal := newFake(), filepath.Join(t.TempDir(), "locks"), agrenting.NewSealingKey()
	f.limit = boundedItem
	storetest.Test(t, func(t *testing.T) agrenting.Store {
		t.Helper()
		s, err := agrenting.Sealed(over(t, f, folder, boundedItem), "my-program/agent-1", seal)
		require.NoError(t, err)
		return s
	})
}

// The items of another agent, and of another name, are of no use.
func TestCopiedSealedItemsAreRefused(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	seal := agrenting.NewSealingKey()
	in := func(prefix, place string) agrenting.Store {
		t.Helper()
		part, err := agrenting.Namespace(s, prefix)
		require.NoError(t, err)
		part, err = agrenting.Sealed(part, place, seal)
		require.NoError(t, err)
		return part
	}
	_, err := in("a", "test").Save(t.Context(), key, someData(0), "")
	require.NoError(t, err)
	item := f.get("agent-1 a.key")
	require.NotEmpty(t, item)
	f.set("agent-1 b.key", item)
	f.set("agent-1 a.other", item)
	_, err = in("a", "test").Load(t.Context(), key)
	require.NoError(t, err)
	for _, tc := range [][3]string{{"b", "test", key}, {"a", "test", "other"}, {"a", "elsewhere", key}} {
		_, err = in(tc[0], tc[1]).Load(t.Context(), tc[2])
		require.ErrorIs(t, err, agrenting.ErrSealed, tc)
	}
}

func TestSmallRecordIsOneItem(t *testing.T) {
	t.Parallel()
	f, s := opened(t, boundedItem)
	rev := save(t, s, someData(0), "")
	save(t, s, someData(1000), rev)
	assert.Equal(t, []string{account}, f.names())
}

func TestPartsOfOldRecordsAreDeleted(t *testing.T) {
	t.Parallel()
	f, s := opened(t, 700)
	rev := save(t, s, someData(6000), "")
	many := len(f.names())
	assert.Greater(t, many, 5)
	for _, n := range []int{6000, 2000, 6000, 1000} {
		rev = save(t, s, someData(n), rev)
		assert.LessOrEqual(t, len(f.names()), many)
	}
	rev = save(t, s, someData(0), rev)
	assert.Equal(t, []string{account}, f.names())
	save(t, s, someData(6000), rev)
	require.NoError(t, s.Remove(t.Context()))
	assert.Empty(t, f.names())
	require.NoError(t, s.Remove(t.Context()), "twice")
	_, err := s.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
}

func TestRemoveDeletesTheNamedRecords(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	for _, name := range []string{key, "a", "b", "c"} {
		_, err := s.Save(t.Context(), name, someData(1), "")
		require.NoError(t, err)
	}
	require.NoError(t, s.Remove(t.Context(), "a", "none", "c"))
	assert.ElementsMatch(t, []string{account, "agent-1 b"}, f.names())
	require.NoError(t, s.Remove(t.Context()))
	assert.Equal(t, []string{"agent-1 b"}, f.names())
}

// TestInterruptedSaveKeepsOldOrNewRecord has a save fail after each of its
// steps.
func TestInterruptedSaveKeepsOldOrNewRecord(t *testing.T) {
	t.Parallel()
	died := errors.New("died")
	for step := 0; ; step++ {
		f, s := opened(t, 300)
		rev := save(t, s, someData(700), "")
		rev = save(t, s, someData(1500), rev)
		left := step
		f.after = func(string, string) error {
			left--
			if left < 0 {
				return died
			}
			return nil
		}
		_, err := s.Save(t.Context(), key, someData(1000), rev)
		f.after = nil
		rec, lerr := s.Load(t.Context(), key)
		require.NoError(t, lerr, "step %d", step)
		want := map[bool][]byte{true: someData(1500), false: someData(1000)}[rec.Revision == rev]
		require.Equal(t, want, rec.Data, "step %d", step)
		next := save(t, s, someData(1200), rec.Revision)
		rec, lerr = s.Load(t.Context(), key)
		require.NoError(t, lerr)
		require.Equal(t, someData(1200), rec.Data, "step %d", step)
		save(t, s, someData(0), next)
		if left >= 0 {
			require.NoError(t, err)
			assert.Greater(t, step, 10, "every step has been tried")
			return
		}
	}
}

func TestMissingKeyringIsAnError(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	missing := errors.New("the name org.freedesktop.secrets was not provided by any .service files")
	f.fail(missing)
	_, lerr := s.Load(t.Context(), key)
	_, serr := s.Save(t.Context(), key, someData(0), "")
	for _, err := range []error{lerr, serr, s.Remove(t.Context())} {
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, missing)
		require.ErrorContains(t, err, "agrenting.FileStore")
		require.NotErrorIs(t, err, agrenting.ErrNoRecord, "or it would be filled")
		require.NotErrorIs(t, err, agrenting.ErrConflictingWrite)
	}
}

func TestAdviceIsForTheSystem(t *testing.T) {
	t.Parallel()
	for system, want := range map[string]string{
		"darwin": "keychain", "windows": "Credential Manager", "linux": "DBUS_SESSION_BUS_ADDRESS", "freebsd": "Secret Service",
	} {
		assert.Contains(t, advice(system), want)
	}
}

func TestTooLargeRecordIsAnError(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	f.limit = 10
	_, err := s.Save(t.Context(), key, someData(0), "")
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "too long")
	assert.NotContains(t, err.Error(), "sk_keyring")

	_, s = opened(t, 2)
	_, err = s.Save(t.Context(), key, someData(1000), "")
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorContains(t, err, "too large")
}

func TestForgetfulKeyringIsDetected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(f *fake){
		"forgets": func(f *fake) { clear(f.items) },
		"alters":  func(f *fake) { f.items["program\x00"+account] += "\n" },
	} {
		f, s := opened(t, freeItem)
		f.after = func(op, _ string) error {
			if op == "set" {
				change(f)
			}
			return nil
		}
		_, err := s.Save(t.Context(), key, someData(0), "")
		require.ErrorIs(t, err, ErrUnavailable, name)
	}
}

func TestForeignItemsAreLeftIntact(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ account, text, want string }{
		"a password":           {account, "hunter2-0123456789", "not a record"},
		"an older format":      {account, `{"format":1,"revision":"x","record":{}}`, "format 1"},
		"a newer format":       {account, `{"format":3,"revision":"x"}`, "format 3"},
		"no format":            {account, `{"revision":"x"}`, "format 0"},
		"no revision":          {account, `{"format":2}`, "damaged"},
		"data cut off":         {account, `{"format":2,"revision":"x","data":"eHh4e"}`, "damaged"},
		"missing part":         {account, `{"format":2,"revision":"x","parts":2,"slot":"a"}`, "part 1 of 2 is missing"},
		"absurd parts":         {account, `{"format":2,"revision":"x","parts":1000000,"slot":"a"}`, "damaged"},
		"negative parts":       {account, `{"format":2,"revision":"x","parts":-1}`, "damaged"},
		"unknown slot":         {account, `{"format":2,"revision":"x","parts":1,"slot":"c"}`, "damaged"},
		"that of older builds": {"agent-1", `{"format":1,"revision":"x","record":{}}`, "older build"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, s := opened(t, freeItem)
			f.set(tc.account, tc.text)
			_, err := s.Load(t.Context(), key)
			require.ErrorIs(t, err, agrenting.ErrInvalidRecord)
			require.ErrorContains(t, err, tc.want)
			require.NotErrorIs(t, err, agrenting.ErrNoRecord)
			assert.NotContains(t, err.Error(), "hunter2")
			_, err = s.Save(t.Context(), key, someData(0), "")
			require.Error(t, err)
			assert.Equal(t, tc.text, f.get(tc.account))
			assert.Equal(t, []string{tc.account}, f.names())
		})
	}
}

func TestItemOfOtherProgramIsIgnored(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	f.set("agent-1", "hunter2")
	_, err := s.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
	save(t, s, someData(0), "")
	assert.Equal(t, "hunter2", f.get("agent-1"))
}

func TestMixedPartsAreNoticed(t *testing.T) {
	t.Parallel()
	f, s := opened(t, 300)
	save(t, s, someData(1000), "")
	f.set(account+" (part a1)", strings.Repeat("x", 300))
	_, err := s.Load(t.Context(), key)
	require.ErrorIs(t, err, agrenting.ErrInvalidRecord)
	require.ErrorContains(t, err, "do not belong together")
}

func TestHangingKeyringDoesNotBlockCallers(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	rev := save(t, s, someData(1), "")
	held := make(chan struct{})
	f.mu.Lock()
	f.held = held
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	data := someData(2)
	_, err := s.Save(ctx, key, data, rev)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	clear(data) // belongs to the caller again
	f.mu.Lock()
	f.held = nil
	f.mu.Unlock()
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err = s.Load(ctx, key)
	require.ErrorIs(t, err, context.DeadlineExceeded, "the call that hangs has the lock")
	close(held)
	rec, err := s.Load(t.Context(), key)
	require.NoError(t, err)
	assert.Equal(t, someData(2), rec.Data, "the save was completed under the lock")
}

func TestPanicInTheLibraryIsAnError(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	f.after = func(string, string) error { panic("secret") }
	f.set(account, "x")
	_, err := s.Load(t.Context(), key)
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

func TestItemIsJSON(t *testing.T) {
	t.Parallel()
	f, s := opened(t, freeItem)
	rev := save(t, s, []byte("\x00\xff"), "")
	var h head
	require.NoError(t, json.Unmarshal([]byte(f.get(account)), &h))
	assert.Equal(t, head{Format: 2, Revision: string(rev), Data: "AP8="}, h)
}
