package record

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Entry is a decoded record. The zero value represents a record that does not exist
// yet.
type Entry[T any] struct {
	Body     T
	Lease    Lease
	Revision string

	write string // the random ID of the write that made it
}

// Config describes a [Slot]. Store and Mismatch are required. Most programs only set
// these two and Of, such as Identity{Origin: "https://agrenting.com"}.
type Config struct {
	Store Store
	// Of is where the records of this client belong.
	Of Identity
	// Mismatch returns the error for a record that belongs elsewhere.
	Mismatch func(name, field, stored, configured string) error
	// Warn is called about what the store accepts but the user should change. If it is
	// nil, there are no warnings.
	Warn func(text string)
	// Clock is for tests; nil means the monotonic clock.
	Clock Clock
}

// Slot is one named record in a store. It is safe for concurrent use.
type Slot[T any] struct {
	cfg   Config
	name  string
	codec codec[T]
	seen  observer

	mu    sync.Mutex
	times [7]time.Duration // of the latest operations
	next  int
}

// Keys returns the slot of the key record.
func Keys(cfg Config) *Slot[Key] { return newSlot(cfg, KeyName, keyCodec) }

// Sessions returns the slot of the sessions of a lineage of keys. The sessions are
// read and written with key.
func Sessions(cfg Config, lineage string, key secret.Credential) *Slot[Session] {
	name := SessionName(cfg.Of.Origin, lineage)
	return newSlot(cfg, name, sessionCodec(name, key))
}

func newSlot[T any](cfg Config, name string, c codec[T]) *Slot[T] {
	if cfg.Clock == nil {
		cfg.Clock = monotonic
	}
	return &Slot[T]{cfg: cfg, name: name, codec: c}
}

// Name returns the name of the record.
func (s *Slot[T]) Name() string { return s.name }

// Load returns the record. The error matches [ErrNoRecord] if the record does not
// exist, and [ErrInvalid] if it cannot be used. With an error, the entry contains only
// the revision, if the store returns one.
func (s *Slot[T]) Load(ctx context.Context) (Entry[T], error) {
	began := s.cfg.Clock()
	raw, err := s.cfg.Store.Load(s.warned(ctx), s.name)
	if err != nil && !errors.Is(err, ErrNoRecord) {
		s.seen.failed()
		return Entry[T]{Revision: raw.Revision}, err
	}
	s.took(began)
	s.seen.loaded(raw.Revision, began, s.cfg.Clock())
	if err != nil {
		return Entry[T]{}, err
	}
	return s.decode(raw)
}

func (s *Slot[T]) warned(ctx context.Context) context.Context {
	if s.cfg.Warn == nil {
		return ctx
	}
	return WithWarning(ctx, s.cfg.Warn)
}

// decode checks a record before anything in it is used.
func (s *Slot[T]) decode(raw Raw) (Entry[T], error) {
	e, of, err := s.codec.unmarshal(raw.Data)
	if err != nil {
		return Entry[T]{Revision: raw.Revision}, fmt.Errorf("the record %q: %w", s.name, err)
	}
	if field, mine, theirs := s.cfg.Of.mismatch(of); field != "" {
		return Entry[T]{}, s.cfg.Mismatch(s.name, field, theirs, mine)
	}
	e.Revision = raw.Revision
	return e, nil
}

// Save replaces the record if it still has the revision of e, and returns the record
// that is then stored. A store may report a failure, or even a conflict, for a write
// that took effect. Save recognizes its own write and reports success.
func (s *Slot[T]) Save(ctx context.Context, e Entry[T]) (Entry[T], error) {
	e.write = rand.Text()
	return s.save(ctx, e, 0)
}

// save writes e with its write ID. It limits each operation of the store, unless limit
// is 0.
func (s *Slot[T]) save(ctx context.Context, e Entry[T], limit time.Duration) (Entry[T], error) {
	e.Lease.Counter++
	data, err := s.codec.marshal(e, s.cfg.Of)
	if err != nil {
		return Entry[T]{}, err
	}
	began := s.cfg.Clock()
	revision, err := limited(ctx, limit, func(ctx context.Context) (string, error) {
		return s.cfg.Store.Save(s.warned(ctx), s.name, data, e.Revision)
	})
	if err == nil {
		s.took(began)
		s.seen.loaded(revision, began, s.cfg.Clock())
		e.Revision = revision
		return e, nil
	}
	if errors.Is(err, ErrReadOnly) || ctx.Err() != nil {
		return Entry[T]{}, err
	}
	now, lerr := limited(ctx, limit, s.Load)
	if lerr == nil && now.write == e.write {
		return now, nil
	}
	return Entry[T]{}, err
}

func limited[R any](ctx context.Context, limit time.Duration, f func(context.Context) (R, error)) (R, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return f(ctx)
}

// took notes how long an operation has taken.
func (s *Slot[T]) took(began time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[s.next%len(s.times)] = s.cfg.Clock() - began
	s.next++
}

func (s *Slot[T]) slowest() (d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.times {
		d = max(d, t)
	}
	return d
}
