package record

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"sync"
)

// Memory is a store in memory.
type Memory struct {
	mu      sync.Mutex
	records map[string]func() Raw // functions, so that no printer shows the data
	last    uint64                // the latest revision
	changed chan struct{}
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{records: map[string]func() Raw{}, changed: make(chan struct{})}
}

// String names the store.
func (*Memory) String() string { return "agrenting.MemoryStore()" }

// Volatile reports that the records are lost with the process.
func (*Memory) Volatile() bool { return true }

// Load implements [Store].
func (s *Memory) Load(ctx context.Context, name string) (Raw, error) {
	raw, _, err := s.load(name)
	if ctx.Err() != nil {
		return Raw{}, context.Cause(ctx)
	}
	return raw, err
}

func (s *Memory) load(name string) (Raw, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	get, ok := s.records[name]
	if !ok {
		return Raw{}, s.changed, fmt.Errorf("%w: %q is not in memory", ErrNoRecord, name)
	}
	raw := get()
	return Raw{Data: append([]byte{}, raw.Data...), Revision: raw.Revision}, s.changed, nil
}

// Save implements [Store].
func (s *Memory) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if get, ok := s.records[name]; (ok && get().Revision != previous) || (!ok && previous != "") {
		return "", fmt.Errorf("%w: %q has another revision", ErrConflict, name)
	}
	s.last++
	raw := Raw{Data: append([]byte{}, data...), Revision: strconv.FormatUint(s.last, 10)}
	s.records[name] = func() Raw { return raw }
	close(s.changed)
	s.changed = make(chan struct{})
	return raw.Revision, nil
}

// Watch implements [Store].
func (s *Memory) Watch(ctx context.Context, name string) iter.Seq2[Raw, error] {
	return func(yield func(Raw, error) bool) {
		for seen, first := "", true; ctx.Err() == nil; first = false {
			raw, changed, err := s.load(name)
			if (first || raw.Revision != seen) && !yield(raw, err) {
				return
			}
			seen = raw.Revision
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}
