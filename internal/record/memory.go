package record

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
)

// Memory is a store in memory.
type Memory struct {
	mu      sync.Mutex
	records map[string]*memoryRecord
	last    uint64 // the latest revision
	changed chan struct{}
}

// memoryRecord is a record and its followers.
type memoryRecord struct {
	get       func() Raw // a function, so that no printer shows the data; nil for no record
	followers []*func()
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{records: map[string]*memoryRecord{}, changed: make(chan struct{})}
}

// String returns a name for the store.
func (*Memory) String() string { return "agrenting.MemoryStore()" }

// ShowsNoSecret implements [secret.Named].
func (*Memory) ShowsNoSecret() {}

// Volatile reports that the records are lost when the process ends.
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
	r := s.records[name]
	if r == nil || r.get == nil {
		return Raw{}, s.changed, fmt.Errorf("%w: %q is not in memory", ErrNoRecord, name)
	}
	raw := r.get()
	return Raw{Data: append([]byte{}, raw.Data...), Revision: raw.Revision}, s.changed, nil
}

// Save implements [Store].
func (s *Memory) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	revision, followers, err := s.save(name, data, previous)
	for _, changed := range followers {
		(*changed)()
	}
	return revision, err
}

func (s *Memory) save(name string, data []byte, previous string) (revision string, followers []*func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, current := s.records[name], ""
	if r != nil && r.get != nil {
		current = r.get().Revision
	}
	if current != previous {
		return "", nil, fmt.Errorf("%w: %q has another revision", ErrConflict, name)
	}
	s.last++
	raw := Raw{Data: append([]byte{}, data...), Revision: strconv.FormatUint(s.last, 10)}
	r = s.recordLocked(name)
	r.get = func() Raw { return raw }
	close(s.changed)
	s.changed = make(chan struct{})
	return raw.Revision, slices.Clone(r.followers), nil
}

// recordLocked returns the record of a name, which may have no data.
func (s *Memory) recordLocked(name string) *memoryRecord {
	r := s.records[name]
	if r == nil {
		r = &memoryRecord{}
		s.records[name] = r
	}
	return r
}

// Notify implements [Notifier].
func (s *Memory) Notify(name string, changed func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.recordLocked(name)
	r.followers = append(r.followers, &changed)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.followers = slices.DeleteFunc(r.followers, func(f *func()) bool { return f == &changed })
	}
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
