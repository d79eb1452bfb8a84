package agrenting

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go/internal/filestore"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// A Store keeps small named records and updates them by compare-and-swap. It is
// safe for concurrent use, by several processes if they share it.
//
// A name has at most 63 characters and consists of labels of lowercase letters,
// digits, and hyphens, joined by dots, such as "key" or "session.0123456789abcdef".
// Data has at most 64 KiB and is usually under 4 KiB. It may contain unencrypted
// secrets: wrap the store in [Sealed] if others can read it.
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
	// An error, even ErrConflictingWrite, does not prove that nothing was
	// written, because a database client may repeat a call whose response
	// was lost. The SDK then loads the record and compares a write ID in it.
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

// Format writes what String returns, for every verb and flag.
func (r Record) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, r.String()) }

// LogValue returns what String returns.
func (r Record) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (r Record) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// WithStore keeps the client's API key in store, through all its rotations, and
// with [WithSession] also shares its sessions there. An empty store is filled with the
// initial key: the explicit credential or the one from the environment. After that, the store
// decides: the initial key is ignored if it is, or was, a key of the record. A key that the
// record has never contained was provided by an operator. If the stored key is rejected, that
// key is verified and adopted.
//
// The client follows rotations by other processes that share the store.
// [Client.Rotate] rotates the key; [WithRotation] also does so by age.
//
// A record belongs to an origin, an environment, and an agent. A client that is
// configured for others refuses it with a [*RecordMismatchError]. The keys of several
// agents can share one store with [Namespace].
//
// To share only sessions, set SessionPolicy.Store instead. To keep the key in
// another store than the sessions, also set RotationPolicy.Store.
func WithStore(store Store) Option {
	return func(cfg *config) error {
		if store == nil {
			return optionError("WithStore", "the store is nil")
		}
		cfg.store = store
		return nil
	}
}

// RecordMismatchError means that a stored record belongs to another origin, environment,
// or agent than the client, for example {"key", "environment", "sandbox", "production"}. The
// client has not used the record. Most programs only print the error: its text says what to
// change.
type RecordMismatchError struct {
	// Record is the name of the record, such as "key".
	Record string
	// Field is "origin", "environment", or "agent".
	Field string
	// Stored is the value in the record, and Configured the value of the client. An agent
	// is empty if it is not known.
	Stored, Configured string
}

// Error implements error.
func (e *RecordMismatchError) Error() string {
	if e.Field == "agent" && (e.Stored == "" || e.Configured == "") {
		return fmt.Sprintf("agrenting: the stored record %q may belong to another agent than this client: the record's agent is %s, "+
			"and that of the configured key is %s. The record was not used, and nothing was changed. "+
			"If they are the same agent, set WithAgentID. Otherwise, give each agent a part of the store: agrenting.Namespace(store, prefix), "+
			"with the agent's ID as prefix", e.Record, agentName(e.Stored), agentName(e.Configured))
	}
	s := fmt.Sprintf("agrenting: the stored record %q belongs to the %s %s, and this client is configured for %s; nothing was changed.",
		e.Record, e.Field, secret.Clean(e.Stored), secret.Clean(e.Configured))
	if e.Field == "agent" {
		return s + " Give each agent a part of the store: agrenting.Namespace(store, prefix), with the agent's ID as prefix"
	}
	return s + " Use another store, or agrenting.Namespace"
}

func agentName(id string) string {
	if id == "" {
		return "not known"
	}
	return secret.Clean(id)
}

func newMismatch(name, field, stored, configured string) error {
	return &RecordMismatchError{Record: name, Field: field, Stored: stored, Configured: configured}
}

// Namespace returns a part of a store, whose records cannot clash with those of
// other parts: the names get prefix and a dot in front. The prefix is a name
// itself, such as an agent's ID in lowercase. Many keys can then share one folder,
// table or cluster.
//
// The result is a [Watcher] if s is one. The error is an [ErrInvalidOption] if
// prefix is not valid, or leaves no room for the SDK's names.
func Namespace(s Store, prefix string) (Store, error) {
	if s == nil {
		return nil, optionError("Namespace", "the store is nil")
	}
	if problem := record.PrefixProblem(prefix); problem != "" {
		return nil, optionError("Namespace", "the prefix %s", problem)
	}
	return publicStore(record.NewNamespace(recordStore(s), prefix), watched(s)), nil
}

// FileStore keeps each record in a separate file in folder, such as
// "/var/lib/writer/keys". Files have mode 0600. They are replaced atomically,
// synced to the disk, and locked by the kernel while they are replaced, so that
// the processes of one host can share the folder. Locks are kept in the folder
// ".locks" in it.
//
// A missing folder is created with mode 0700 by the first Save. An existing one
// keeps its mode. FileStore refuses:
//
//   - a file or lock that is not a regular file, belongs to another user than the
//     effective one, or can be opened by others
//   - a folder that is a symbolic link, belongs to another user (root excepted), or
//     can be written to by others, unless it is sticky like /tmp
//   - a folder above it that belongs to another user (root excepted), or can be written
//     to by others, unless it is sticky; also where symbolic links above it lead
//
// The error contains the command that fixes this, if one does. The root of a mount, such
// as an emptyDir of Kubernetes, may be open to others: the client's logger gets one
// warning. Owners and modes are not checked on Windows. Secrets are unencrypted in the files
// unless the store is wrapped in [Sealed].
//
// FileStore touches nothing until the first Load or Save. It returns an
// [ErrInvalidOption] if the folder's name is empty or names a file.
func FileStore(folder string) (Store, error) {
	s, err := filestore.New(filestore.Config{Folder: folder, Invalid: fileStoreError})
	if err != nil {
		return nil, err
	}
	return publicStore(s, false), nil
}

func fileStoreError(format string, args ...any) error {
	return optionError("FileStore", format, args...)
}

// MemoryStore keeps records in memory. A key that is rotated into it is lost with
// the process: it is for tests, and for programs that save each new key
// themselves, see [WithObserver]. It is a [Watcher].
func MemoryStore() Store { return publicStore(record.NewMemory(), true) }

// recordStore gives a public store the shape that internal/record uses.
func recordStore(s Store) record.Store {
	if b, ok := s.(internalStore); ok {
		return b.internal()
	}
	return &storePort{store: s, hung: make(chan struct{}, maxHung)}
}

// publicStore is the reverse of recordStore. The result is a [Watcher] if watched
// is set.
func publicStore(s record.Store, watched bool) Store {
	if watched {
		return watchedBuiltIn{builtIn{s}}
	}
	return builtIn{s}
}

// watched reports whether a store is a [Watcher].
func watched(s Store) bool {
	_, ok := s.(Watcher)
	return ok
}

// volatile reports whether the records of a store are lost with the process.
func volatile(s Store) bool {
	v, ok := recordStore(s).(interface{ Volatile() bool })
	return ok && v.Volatile()
}

// internalStore is a public store that is an internal one underneath.
type internalStore interface {
	Store
	secret.Named

	internal() record.Store
}

// builtIn is an internal store as a public one.
type builtIn struct{ inner record.Store }

func (s builtIn) internal() record.Store { return s.inner }

// Load implements [Store].
func (s builtIn) Load(ctx context.Context, name string) (Record, error) {
	raw, err := s.inner.Load(ctx, name)
	return recordOf(raw), err
}

// Save implements [Store].
func (s builtIn) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	revision, err := s.inner.Save(ctx, name, data, string(previous))
	return Revision(revision), err
}

// String names the store.
func (s builtIn) String() string { return secret.NameOf(s.inner) }

// ShowsNoSecret implements [secret.Named].
func (builtIn) ShowsNoSecret() {}

func recordOf(raw record.Raw) Record { return Record{Data: raw.Data, Revision: Revision(raw.Revision)} }

// watchedBuiltIn is an internal store that can be watched.
type watchedBuiltIn struct{ internalStore }

// Watch implements [Watcher].
func (s watchedBuiltIn) Watch(ctx context.Context, name string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for raw, err := range s.internal().Watch(ctx, name) {
			if !yield(recordOf(raw), err) {
				return
			}
		}
	}
}

// storePort turns panics of a store into errors: a store that panics must not
// take the program with it, or a key that is in memory alone. Its calls end with
// their contexts, also if those of the store do not.
type storePort struct {
	store Store
	hung  chan struct{} // has one element for each call that was left behind and has not returned
}

const (
	// storeGrace is how long a store may take to return once the context has ended, if
	// the call had that long before: it may be in the middle of a write.
	storeGrace = time.Second
	// maxHung is how many calls may be left behind before no further one is made.
	maxHung = 16
)

// await makes a call of the store on a goroutine, and leaves it there if it does not
// return.
func await[T any](ctx context.Context, p *storePort, call func() (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	var none T
	if err := p.room(ctx); err != nil {
		return none, err
	}
	patience := storeGrace
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(end))
	}
	done := make(chan outcome, 1)
	go func() {
		o := outcome{err: fmt.Errorf("agrenting: the store %T has ended its goroutine", p.store)}
		defer func() {
			if r := recover(); r != nil {
				o.err = secret.PanicError("the store", r)
			}
			done <- o
		}()
		o.v, o.err = call()
	}()
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
	}
	grace := time.NewTimer(patience)
	defer grace.Stop()
	select {
	case o := <-done:
		return o.v, o.err
	case <-grace.C:
	}
	select {
	case p.hung <- struct{}{}:
		go func() {
			<-done
			<-p.hung
		}()
	default:
	}
	return none, fmt.Errorf("agrenting: the store %T ignores its context: %w", p.store, wire.EndOf(ctx))
}

// room waits while the store has too many calls that were left behind. It fails if ctx has
// ended: the store is not called then.
func (p *storePort) room(ctx context.Context) error {
	if ctx.Err() != nil {
		return wire.EndOf(ctx)
	}
	select {
	case p.hung <- struct{}{}:
		<-p.hung
		return nil
	default:
	}
	select {
	case p.hung <- struct{}{}:
		<-p.hung
		return nil
	case <-ctx.Done():
		return fmt.Errorf("agrenting: the store %T has not returned from %d calls: %w", p.store, maxHung, wire.EndOf(ctx))
	}
}

// String names the store.
func (p *storePort) String() string { return secret.NameOf(p.store) }

// ShowsNoSecret implements [secret.Named].
func (*storePort) ShowsNoSecret() {}

func (p *storePort) Load(ctx context.Context, name string) (record.Raw, error) {
	return await(ctx, p, func() (record.Raw, error) {
		rec, err := p.store.Load(ctx, name)
		return record.Raw{Data: rec.Data, Revision: string(rec.Revision)}, storeError(err)
	})
}

func (p *storePort) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	data = bytes.Clone(data) // the call may outlive this one
	return await(ctx, p, func() (string, error) {
		rev, err := p.store.Save(ctx, name, data, Revision(previous))
		if err == nil && rev == "" {
			return "", fmt.Errorf("agrenting: the store %T returned an empty revision", p.store)
		}
		return string(rev), storeError(err)
	})
}

// storeError removes what looks like a secret from the error of a store: a database may quote a
// row.
func storeError(err error) error {
	return secret.WithoutSecrets(secret.CleanError(err, secret.RedactLikely))
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
			err = storeError(err)
			consumer = true
			if !yield(rec, err) {
				return
			}
			consumer = false
		}
	}
}
