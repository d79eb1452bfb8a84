package agrenting

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strconv"
	"sync"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// A Store keeps small named records and updates them by compare-and-swap. It is
// safe for concurrent use, by several processes if they share it.
//
// A name has at most 63 characters and consists of labels of lowercase letters,
// digits and hyphens, joined by dots, such as "key" or "session.0123456789abcdef".
// Data has at most 64 KiB and is usually under 4 KiB. It may hold secrets in
// clear: wrap the store in [Sealed] if others can read it.
//
// Package agrentingtest/storetest has a conformance suite.
type Store interface {
	// Load returns the latest durable record. Loads are linearizable.
	// Load returns ErrNoRecord if there is no record, and a different error
	// if the place itself (folder, volume) is gone.
	// The caller owns the returned data.
	Load(ctx context.Context, name string) (Record, error)

	// Save replaces the record if its revision is still previous. An empty
	// previous means that there is no record. Otherwise Save returns
	// ErrConflictingWrite. It returns ErrReadOnlyStore if it cannot write.
	// The record is durable when Save returns.
	//
	// Any error, including a conflict, may hide a successful write by the
	// caller, because clients repeat calls automatically. Load the record and
	// compare the write ID.
	//
	// Save does not retain data. A revision is never empty and never recurs,
	// even if the record is deleted and created again.
	Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error)
}

// Revision is the version of a record, for compare-and-swap. It is opaque, and
// empty if there is no record.
type Revision string

// A Record is the data of one named record and its revision. It prints redacted.
type Record struct {
	Data     []byte
	Revision Revision
}

// Watcher is an optional interface of a [Store]. Watch yields the current record,
// or ErrNoRecord if there is none (also after a deletion). After changes, it
// yields the newest record. It may skip and repeat records, but it never goes
// back to an older one.
//
// If the store is unreachable, Watch yields the error and ends. The SDK calls
// Watch again after a pause. While it has requests, it also loads the record
// every 30 s.
type Watcher interface {
	Watch(ctx context.Context, name string) iter.Seq2[Record, error]
}

// String returns a summary without the data.
func (r Record) String() string {
	return fmt.Sprintf("agrenting.Record(%d bytes, revision %q)", len(r.Data), string(r.Revision))
}

// GoString returns what String returns.
func (r Record) GoString() string { return r.String() }

// Format writes what String returns, whatever the verb and its flags.
func (r Record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue returns what String returns.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (r Record) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// WithStore keeps the client's API key in store, through all its rotations, and
// with [WithSession] shares its sessions there, too. While the store is empty, it
// is filled with the explicit credential or the one from the environment, the
// initial key. After that the store decides: an initial key that is one of the
// record's keys, or was, is ignored. A key that the store has never seen was
// provided by an operator: it is tried when the stored key is rejected, verified,
// and adopted.
//
// The client follows rotations by other processes that share the store.
// [Client.Rotate] rotates the key; [WithRotation] also does so by age.
//
// A record belongs to an origin, an environment and an agent. A client that is
// configured for others refuses it with a [*RecordMismatchError]. Keys of several
// agents can share one place with [Namespace].
//
// To share sessions alone, set SessionPolicy.Store instead. To keep the key in
// another store than the sessions, set RotationPolicy.Store, too.
func WithStore(store Store) Option {
	return func(cfg *config) error {
		if store == nil {
			return optionError("WithStore", "the store is nil")
		}
		cfg.store = store
		return nil
	}
}

// RecordMismatchError says that a stored record belongs to another origin,
// environment or agent than the client. The client has used nothing of the
// record.
type RecordMismatchError struct {
	// Record is the name of the record, such as "key".
	Record string
	// Field is "origin", "environment" or "agent".
	Field string
	// Stored is the value in the record, Configured that of the client.
	Stored, Configured string
}

// Error implements error.
func (e *RecordMismatchError) Error() string {
	s := fmt.Sprintf("agrenting: the stored record %q belongs to the %s %s, and this client is configured for %s; nothing was changed.",
		e.Record, e.Field, secret.Clean(e.Stored), secret.Clean(e.Configured))
	if e.Field == "agent" {
		return s + " Give each agent a part of the store: agrenting.Namespace(store, prefix), with the agent's ID as prefix"
	}
	return s + " Use another store, or agrenting.Namespace"
}

func newMismatch(name, field, stored, configured string) error {
	return &RecordMismatchError{Record: name, Field: field, Stored: stored, Configured: configured}
}

// Namespace returns a part of a store, whose records cannot clash with those of
// other parts: the names get prefix and a dot in front. The prefix is a name
// itself, such as an agent's ID in lowercase. Many keys can so share one folder,
// table or cluster.
//
// The result is a [Watcher] if s is one. The error is an [ErrInvalidOption] if
// prefix is not valid, or leaves no room for the SDK's names.
func Namespace(s Store, prefix string) (Store, error) {
	if s == nil {
		return nil, optionError("Namespace", "the store is nil")
	}
	if problem := record.NameProblem(prefix); problem != "" {
		return nil, optionError("Namespace", "the prefix %s", problem)
	}
	if longest := len(prefix) + 1 + len(record.SessionName("", "")); longest > record.MaxName {
		return nil, optionError("Namespace", "the prefix is %d characters too long", longest-record.MaxName)
	}
	n := &namespace{inner: s, prefix: prefix + "."}
	if w, ok := s.(Watcher); ok {
		return watchable{Store: n, watch: func(ctx context.Context, name string) iter.Seq2[Record, error] {
			return w.Watch(ctx, n.prefix+name)
		}}, nil
	}
	return n, nil
}

type namespace struct {
	inner  Store
	prefix string
}

func (n *namespace) Load(ctx context.Context, name string) (Record, error) {
	return n.inner.Load(ctx, n.prefix+name)
}

func (n *namespace) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	return n.inner.Save(ctx, n.prefix+name, data, previous)
}

func (n *namespace) String() string {
	return "agrenting.Namespace(" + storeName(n.inner) + ", " + n.prefix + ")"
}

// watchable is a store that wraps a watchable one.
type watchable struct {
	Store

	watch func(ctx context.Context, name string) iter.Seq2[Record, error]
}

// Watch implements [Watcher].
func (w watchable) Watch(ctx context.Context, name string) iter.Seq2[Record, error] {
	return w.watch(ctx, name)
}

// String names the store.
func (w watchable) String() string { return storeName(w.Store) }

// storeName names a store without looking into one that does not print itself.
func storeName(s Store) string {
	if n, ok := s.(fmt.Stringer); ok {
		return n.String()
	}
	return fmt.Sprintf("%T", s)
}

// MemoryStore keeps records in memory. A key that is rotated into it is lost with
// the process: it is for tests, and for programs that save each new key
// themselves, see [WithObserver]. It is a [Watcher].
func MemoryStore() Store {
	return &memoryStore{records: map[string]func() Record{}, changed: make(chan struct{})}
}

type memoryStore struct {
	mu      sync.Mutex
	records map[string]func() Record // functions, which nothing prints
	last    uint64                   // the latest revision
	changed chan struct{}
}

func (s *memoryStore) Load(ctx context.Context, name string) (Record, error) {
	rec, _, err := s.load(name)
	if ctx.Err() != nil {
		return Record{}, context.Cause(ctx)
	}
	return rec, err
}

func (s *memoryStore) load(name string) (Record, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	get, ok := s.records[name]
	if !ok {
		return Record{}, s.changed, fmt.Errorf("%w: %q is not in memory", ErrNoRecord, name)
	}
	rec := get()
	return Record{Data: append([]byte{}, rec.Data...), Revision: rec.Revision}, s.changed, nil
}

func (s *memoryStore) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if get, ok := s.records[name]; (ok && get().Revision != previous) || (!ok && previous != "") {
		return "", fmt.Errorf("%w: %q has another revision", ErrConflictingWrite, name)
	}
	s.last++
	rec := Record{Data: append([]byte{}, data...), Revision: Revision(strconv.FormatUint(s.last, 10))}
	s.records[name] = func() Record { return rec }
	close(s.changed)
	s.changed = make(chan struct{})
	return rec.Revision, nil
}

// Watch implements [Watcher].
func (s *memoryStore) Watch(ctx context.Context, name string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for seen, first := Revision(""), true; ctx.Err() == nil; first = false {
			rec, changed, err := s.load(name)
			if (first || rec.Revision != seen) && !yield(rec, err) {
				return
			}
			seen = rec.Revision
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

// recordStore gives a public store the shape that internal/record uses.
func recordStore(s Store) record.Store { return &storePort{store: s} }

// storePort turns panics of a store into errors: a store that panics must not
// take the program with it, or a key that is in memory alone.
type storePort struct{ store Store }

func (p *storePort) Load(ctx context.Context, name string) (raw record.Raw, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = secret.PanicError("the store", p)
		}
	}()
	rec, err := p.store.Load(ctx, name)
	return record.Raw{Data: rec.Data, Revision: string(rec.Revision)}, err
}

func (p *storePort) Save(ctx context.Context, name string, data []byte, previous string) (revision string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = secret.PanicError("the store", p)
		}
	}()
	rev, err := p.store.Save(ctx, name, data, Revision(previous))
	if err == nil && rev == "" {
		return "", fmt.Errorf("agrenting: the store %T returned an empty revision", p.store)
	}
	return string(rev), err
}

func (p *storePort) Watch(ctx context.Context, name string) iter.Seq2[record.Raw, error] {
	w, ok := p.store.(Watcher)
	if !ok {
		return nil
	}
	return func(yield func(record.Raw, error) bool) {
		for rec, err := range guarded(ctx, w, name) {
			if !yield(record.Raw{Data: rec.Data, Revision: string(rec.Revision)}, err) {
				return
			}
		}
	}
}

// guarded is Watch of a store, with a panic of the store as its last error.
func guarded(ctx context.Context, w Watcher, name string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		consumer := false // at work: its panics are not the store's
		defer func() {
			if !consumer {
				if p := recover(); p != nil {
					yield(Record{}, secret.PanicError("the store", p))
				}
			}
		}()
		for rec, err := range w.Watch(ctx, name) {
			consumer = true
			if !yield(rec, err) {
				return
			}
			consumer = false
		}
	}
}
