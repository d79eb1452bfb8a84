package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

var bothStrategies = []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace}

// lossOfFile is what happens to the file of a record. backups are its contents before
// each rotation.
type lossOfFile struct {
	name   string
	strike func(t *testing.T, path string, backups [][]byte)
	// repair lets the store work again; nil if it works.
	repair func(t *testing.T, path string)
}

func replaceFile(t *testing.T, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, content, 0o600))
}

var lossesOfFile = []lossOfFile{
	{name: "deleted", strike: func(t *testing.T, path string, _ [][]byte) {
		t.Helper()
		require.NoError(t, os.Remove(path))
	}},
	{name: "all files deleted", strike: func(t *testing.T, path string, _ [][]byte) {
		t.Helper()
		require.NoError(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+" before"))
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
	}},
	{
		name: "folder gone",
		strike: func(t *testing.T, path string, _ [][]byte) {
			t.Helper()
			require.NoError(t, os.Rename(filepath.Dir(path), filepath.Dir(path)+" is unmounted"))
		},
		repair: func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Mkdir(filepath.Dir(path), 0o700))
		},
	},
	{name: "one rotation older", strike: func(t *testing.T, path string, backups [][]byte) {
		t.Helper()
		replaceFile(t, path, backups[len(backups)-1])
	}},
	{name: "two rotations older", strike: func(t *testing.T, path string, backups [][]byte) {
		t.Helper()
		replaceFile(t, path, backups[0])
	}},
	{name: "cut in half", strike: func(t *testing.T, path string, backups [][]byte) {
		t.Helper()
		replaceFile(t, path, backups[0][:len(backups[0])/2])
	}},
	{name: "emptied", strike: func(t *testing.T, path string, _ [][]byte) {
		t.Helper()
		replaceFile(t, path, nil)
	}},
	{name: "overwritten", strike: func(t *testing.T, path string, _ [][]byte) {
		t.Helper()
		replaceFile(t, path, []byte(strings.Repeat("\xff\x00", 500)))
	}},
}

// storeEvents counts reports of a store that fails.
type storeEvents struct{ failed atomic.Int64 }

func (e *storeEvents) observe(ev agrenting.Event) {
	if ev.Type == agrenting.EventStoreFailed {
		e.failed.Add(1)
	}
}

func TestLostRecordIsWrittenBack(t *testing.T) {
	t.Parallel()
	for k, s := range bothStrategies {
		for _, session := range []bool{false, true} {
			for i, loss := range lossesOfFile {
				if sample.Fewer && session == ((i+k)%2 == 0) {
					continue
				}
				name := s.String() + ", " + loss.name
				if session {
					name += ", session"
				}
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					dir := t.TempDir()
					synctest.Test(t, func(t *testing.T) { loseRecord(t, dir, s, session, loss) })
				})
			}
		}
	}
}

// loseRecord has the record of a key that was rotated twice get lost under two clients.
func loseRecord(t *testing.T, dir string, s agrenting.Strategy, session bool, loss lossOfFile) {
	t.Helper()
	w := sdktest.NewRotationWorld(t)
	folder := filepath.Join(dir, "keys")
	path := filepath.Join(folder, "key.record")
	var clients []*agrenting.Client
	var events [2]storeEvents
	for n := range events {
		opts := []agrenting.Option{agrenting.WithObserver(events[n].observe)}
		if session {
			opts = append(opts, agrenting.WithSession())
		}
		clients = append(clients, w.Client(fileStore(t, folder), agrenting.RotationPolicy{Strategy: s, Every: -1}, opts...))
	}
	call := func(n int, every time.Duration) {
		for range n {
			for _, c := range clients {
				require.NoError(t, w.Call(c))
			}
			sdktest.Advance(every)
		}
	}
	const soon = 100 * time.Millisecond
	call(1, soon)
	var backups [][]byte
	for range 2 {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		backups = append(backups, b)
		_, err = clients[0].Rotate(t.Context())
		require.NoError(t, err)
		call(20, soon) // both clients use the new key
	}
	loss.strike(t, path, backups)
	call(100, soon)
	assert.Positive(t, events[0].failed.Load()+events[1].failed.Load(), "the loss is reported")
	if loss.repair != nil {
		require.Error(t, clients[0].Status().StoreError)
		loss.repair(t, path)
		call(140, 5*soon) // until the next attempt to save the record
	}
	for _, c := range clients {
		require.NoError(t, c.Status().StoreError, "the store works")
	}
	assert.Equal(t, uint64(3), w.OneLiveKey(fileStore(t, folder)).Generation, "the newer record is in the store again")
	_, err := clients[1].Rotate(t.Context())
	require.NoError(t, err)
	call(20, soon)
	fresh := w.Client(fileStore(t, folder), agrenting.RotationPolicy{Strategy: s, Every: -1})
	require.NoError(t, w.Call(fresh))
	w.OneLiveKey(fileStore(t, folder))
	for _, c := range append(clients, fresh) {
		require.NoError(t, c.Close())
	}
}

func fileStore(t *testing.T, folder string) agrenting.Store {
	t.Helper()
	store, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	return store
}

// storeOp is an operation of a store, by its number since it was armed.
type storeOp struct {
	n    int
	save bool
}

// opEffect is what goes wrong with an operation of a store.
type opEffect uint8

const (
	opWorks     opEffect = iota
	opFails              // without effect
	opFailsLate          // a save takes effect
)

func (e opEffect) String() string {
	return [...]string{opWorks: "works", opFails: "fails without effect", opFailsLate: "fails with effect"}[e]
}

var errStoreIO = errors.New("input/output error")

// plannedStore numbers the operations of a store, and lets those fail that are planned
// to.
type plannedStore struct {
	agrenting.Store
	plan func(storeOp) opEffect

	mu    sync.Mutex
	armed bool
	n     int
}

// arm begins to number operations.
func (s *plannedStore) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = true
}

// disarm ends the faults and returns how many operations there were.
func (s *plannedStore) disarm() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
	return s.n
}

// storeDelay is how long an operation takes while they are numbered, so that requests
// load the record in between.
const storeDelay = 200 * time.Millisecond

func (s *plannedStore) next(save bool) opEffect {
	n, armed := s.count()
	if !armed {
		return opWorks
	}
	sdktest.Advance(storeDelay)
	return s.plan(storeOp{n, save})
}

func (s *plannedStore) count() (n int, armed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed {
		s.n++
	}
	return s.n - 1, s.armed
}

func (s *plannedStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if s.next(false) != opWorks {
		return agrenting.Record{}, errStoreIO
	}
	return s.Store.Load(ctx, name)
}

func (s *plannedStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	effect := s.next(true)
	if effect == opFails {
		return "", errStoreIO
	}
	rev, err := s.Store.Save(ctx, name, data, previous)
	if effect == opFailsLate {
		return "", errStoreIO
	}
	return rev, err
}

// TestStoreErrorsInARow has two operations or more in a row fail, at each position of a
// rotation under load.
func TestStoreErrorsInARow(t *testing.T) {
	t.Parallel()
	const lost, saved = opFails, opFailsLate
	for _, s := range bothStrategies {
		for i, effects := range [][]opEffect{
			{lost},
			{saved},
			{lost, lost},
			{lost, saved},
			{saved, lost},
			{saved, saved},
			{saved, lost, saved, lost},
			slices.Repeat([]opEffect{lost}, 12), slices.Repeat([]opEffect{saved}, 12),
		} {
			t.Run(fmt.Sprintf("%v, %v, of %d", s, effects[:min(4, len(effects))], len(effects)), func(t *testing.T) {
				t.Parallel()
				var last int
				synctest.Test(t, func(t *testing.T) {
					last = rotateWithStoreErrors(t, s, func(storeOp) opEffect { return opWorks })
				})
				require.GreaterOrEqual(t, last, 5, "a load and four saves")
				for at := range last {
					if sample.Fewer && (at+i)%3 != 0 {
						continue
					}
					plan := func(op storeOp) opEffect {
						if n := op.n - at; n >= 0 && n < len(effects) {
							return effects[n]
						}
						return opWorks
					}
					synctest.Test(t, func(t *testing.T) { rotateWithStoreErrors(t, s, plan) })
					if t.Failed() {
						t.Fatalf("with errors from %d of %d on", at, last)
					}
				}
			})
		}
	}
}

// steadyLoad makes requests with each client until stop, which asserts that none of
// them has failed.
func steadyLoad(t *testing.T, w *sdktest.RotationWorld, every time.Duration, clients ...*agrenting.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var calls, failed atomic.Int64
	var wg sync.WaitGroup
	for n, c := range clients {
		wg.Go(func() {
			for pause(ctx, time.Duration(n)*time.Millisecond); ctx.Err() == nil; pause(ctx, every) {
				calls.Add(1)
				err := w.Call(c) //nolint:contextcheck // a request is not interrupted
				if err != nil && failed.Add(1) <= 3 {
					t.Error(err)
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
		assert.Zero(t, failed.Load(), "of %d requests failed", calls.Load())
	}
}

// rotateWithStoreErrors rotates under load while a store fails as planned, and returns
// how many operations there were.
func rotateWithStoreErrors(t *testing.T, s agrenting.Strategy, plan func(storeOp) opEffect) int {
	t.Helper()
	w := sdktest.NewRotationWorld(t)
	shared := agrenting.MemoryStore()
	store := &plannedStore{Store: shared, plan: plan}
	policy := agrenting.RotationPolicy{Strategy: s, Every: -1}
	a, b := w.Client(store, policy), w.Client(&sdktest.HookedStore{Store: shared}, policy)
	require.NoError(t, w.Call(a))
	require.NoError(t, w.Call(b))
	stop := steadyLoad(t, w, 50*time.Millisecond, a, b)
	store.arm()
	if _, err := a.Rotate(t.Context()); err != nil {
		require.ErrorIs(t, err, errStoreIO)
	}
	n := store.disarm()
	sdktest.Advance(2 * time.Second)
	stop()
	sdktest.Advance(5 * time.Minute) // an attempt that failed continues
	require.NoError(t, w.Call(a))
	require.NoError(t, w.Call(b))
	w.OneLiveKey(shared)
	require.NoError(t, a.Close())
	require.NoError(t, b.Close())
	return n
}

// TestPendingKeyIsUsedWithoutStore has a client die right after it has replaced the key in
// place and saved its successor, and the store go away before another client can finish
// the rotation.
func TestPendingKeyIsUsedWithoutStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		shared := agrenting.MemoryStore()
		life := newMortal(w.Server.Transport())
		saves := 0
		hooked := &skewedStore{shared, new(wallClock), life.live}
		stopping := &sdktest.HookedStore{Store: hooked}
		policy := agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}
		a := w.Client(stopping, policy, agrenting.WithTransport(life))
		breakable := &sdktest.BreakableStore{Store: shared}
		b := w.Client(breakable, policy)
		require.NoError(t, w.Call(a))
		require.NoError(t, w.Call(b))
		stopping.OnSave(func() {
			saves++
			if saves == 4 { // after the intent, the lifeline, and the pending key
				life.die()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.Rotate(ctx)
		require.Error(t, err)
		rec, _, err := sdktest.LoadRecord(t.Context(), shared)
		require.NoError(t, err)
		require.False(t, rec.Pending.IsZero())
		done := make(chan error, 1)
		go func() { done <- w.Call(b) }() // its key is dead
		sdktest.Advance(time.Second)
		breakable.Down.Store(true)
		require.NoError(t, <-done)
		for range 60 {
			require.NoError(t, w.Call(b))
			sdktest.Advance(time.Second)
		}
		breakable.Down.Store(false)
		sdktest.Advance(5 * time.Minute)
		require.NoError(t, w.Call(b))
		_, err = b.Rotate(t.Context())
		require.NoError(t, err)
		w.OneLiveKey(shared)
		require.NoError(t, b.Close())
		_ = a.Close()
	})
}

// scriptedStore yields records, one at each load, and then fails.
type scriptedStore struct {
	mu      sync.Mutex
	records []agrenting.Record
}

func (s *scriptedStore) Load(context.Context, string) (agrenting.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.records) == 0 {
		return agrenting.Record{}, errStoreIO
	}
	rec := s.records[0]
	s.records = s.records[1:]
	return rec, nil
}

func (*scriptedStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	return "", errStoreIO
}

// TestRotateReportsMissingStore has the store show an older record and then go away,
// while another process holds the lease: nothing can show when that ends.
func TestRotateReportsMissingStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		held, _ := w.HeldBy("another process", 20*time.Second)
		newer, err := held.Load(t.Context(), "key")
		require.NoError(t, err)
		older, err := sdktest.StoreWith(agrenting.APIKey(w.Key.Secret)).Load(t.Context(), "key")
		require.NoError(t, err)
		c := w.Client(&scriptedStore{records: []agrenting.Record{newer, older}}, agrenting.RotationPolicy{Every: -1})
		for range 3 {
			require.NoError(t, w.Call(c))
			sdktest.Advance(2 * time.Second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = c.Rotate(ctx)
		require.ErrorIs(t, err, errStoreIO)
		require.NoError(t, w.Call(c))
		_ = c.Close()
	})
}
