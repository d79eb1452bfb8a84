package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
)

// FailingStore is a memory store that can be made to fail, separately for the
// operations "load" and "save".
type FailingStore struct {
	agrenting.Store

	mu   sync.Mutex
	fail map[string]error
}

// NewFailingStore returns a memory store that works until Failing is called.
func NewFailingStore() *FailingStore {
	return &FailingStore{Store: agrenting.MemoryStore(), fail: map[string]error{}}
}

// Failing makes an operation fail with err, or succeed if err is nil.
func (s *FailingStore) Failing(operation string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[operation] = err
}

func (s *FailingStore) failure(operation string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fail[operation]
}

// Load implements agrenting.Store.
func (s *FailingStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if err := s.failure("load"); err != nil {
		return agrenting.Record{}, err
	}
	return s.Store.Load(ctx, name)
}

// Save implements agrenting.Store.
func (s *FailingStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if err := s.failure("save"); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, data, previous)
}

// Saying is a transport that changes the platform's response about a rotated key.
func Saying(base http.RoundTripper, change func(key map[string]any)) http.RoundTripper {
	return RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		if err != nil || !strings.HasSuffix(req.URL.Path, "/rotate-key") || resp.StatusCode >= 300 {
			return resp, err
		}
		defer resp.Body.Close()
		var body struct {
			Data map[string]any `json:"data"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			return nil, err
		}
		change(body.Data)
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		resp.Header.Del("Content-Length")
		return resp, nil
	})
}

// LivingFor returns a change that gives keys a lifetime of d.
func LivingFor(d time.Duration) func(map[string]any) {
	return func(key map[string]any) {
		text, _ := key["created_at"].(string)
		at, _ := time.Parse(time.RFC3339, text)
		key["expires_at"] = at.Add(d).Format(time.RFC3339)
	}
}

// HookedStore calls a function before each operation.
type HookedStore struct {
	agrenting.Store
	load, save atomic.Pointer[func()]
}

// OnLoad sets the function that Load calls; nil sets none.
func (s *HookedStore) OnLoad(f func()) { s.load.Store(hookOf(f)) }

// OnSave sets the function that Save calls; nil sets none.
func (s *HookedStore) OnSave(f func()) { s.save.Store(hookOf(f)) }

func hookOf(f func()) *func() {
	if f == nil {
		return nil
	}
	return &f
}

// Load implements agrenting.Store.
func (s *HookedStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if f := s.load.Load(); f != nil {
		(*f)()
	}
	return s.Store.Load(ctx, name)
}

// Save implements agrenting.Store.
func (s *HookedStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if f := s.save.Load(); f != nil {
		(*f)()
	}
	return s.Store.Save(ctx, name, data, prev)
}

// Interposed lets another process act immediately before a save.
type Interposed struct {
	agrenting.Store
	Other atomic.Pointer[func()]
}

// Save implements agrenting.Store.
func (s *Interposed) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if f := s.Other.Swap(nil); f != nil {
		(*f)()
	}
	return s.Store.Save(ctx, name, data, prev)
}

// ErrDown is the error of a [BreakableStore] that cannot be reached.
var ErrDown = errors.New("connection refused")

// BreakableStore is a store that can be made unreachable.
type BreakableStore struct {
	agrenting.Store
	Down  atomic.Bool
	Loads atomic.Int64
	Slow  atomic.Int64 // how long a response takes to arrive, in ns
}

// Load implements agrenting.Store.
func (s *BreakableStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	s.Loads.Add(1)
	if s.Down.Load() {
		return agrenting.Record{}, ErrDown
	}
	rec, err := s.Store.Load(ctx, name)
	Advance(time.Duration(s.Slow.Load()))
	return rec, err
}

// Save implements agrenting.Store.
func (s *BreakableStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if s.Down.Load() {
		return "", ErrDown
	}
	return s.Store.Save(ctx, name, data, prev)
}

// WatchedStore is a [BreakableStore] that reports changes.
type WatchedStore struct{ BreakableStore }

// Watch implements agrenting.Watcher.
func (s *WatchedStore) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return s.Store.(agrenting.Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
}

// RefusingStore can be read. It refuses each save with its error, if it has one.
type RefusingStore struct {
	agrenting.Store
	Err atomic.Pointer[error]
}

// Refusing returns a store that refuses each save with err.
func Refusing(store agrenting.Store, err error) *RefusingStore {
	s := &RefusingStore{Store: store}
	s.Err.Store(&err)
	return s
}

// Save implements agrenting.Store.
func (s *RefusingStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if err := *s.Err.Load(); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, data, prev)
}

// FaultyStore refuses to save after a number of successes.
type FaultyStore struct {
	agrenting.Store
	Refuse atomic.Bool
	Spare  atomic.Int64
}

// Save implements agrenting.Store.
func (s *FaultyStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if s.Refuse.Load() && s.Spare.Add(-1) < 0 {
		return "", errors.New("disk full")
	}
	return s.Store.Save(ctx, name, data, prev)
}
