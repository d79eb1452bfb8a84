package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
)

// Defaults.
const (
	DefaultPrefix  = "/agrenting/"
	DefaultTimeout = 5 * time.Second
	DefaultLockTTL = 5 * time.Second
	// DefaultSessionRetention is how long etcd keeps a session's record that
	// nobody renews. One is left behind by each rotation of the key.
	DefaultSessionRetention = 7 * 24 * time.Hour
)

// Option configures a [Store].
type Option func(*options) error

type options struct {
	sealing   []agrenting.SealingKey
	plaintext bool
	namespace string
	prefix    string
	timeout   time.Duration
	lockTTL   time.Duration
	retention time.Duration
}

// WithSealingKey seals the keys before etcd gets them. key seals; key and older
// open, see [agrenting.Sealed].
func WithSealingKey(key agrenting.SealingKey, older ...agrenting.SealingKey) Option {
	return func(o *options) error {
		o.sealing = append([]agrenting.SealingKey{key}, older...)
		return nil
	}
}

// WithPlaintext stores API keys in clear: whoever can read etcd, a snapshot or a
// backup of it has them. It is for etcd that is encrypted itself, and for moving
// a record from plain to sealed:
//
//	plain, err := etcdstore.New(client, "writer", etcdstore.WithPlaintext())
//	sealed, err := agrenting.Sealed(plain, key)
//	err = agrenting.Reseal(ctx, plain, sealed)
func WithPlaintext() Option {
	return func(o *options) error {
		o.plaintext = true
		return nil
	}
}

// WithPrefix puts all keys under prefix instead of [DefaultPrefix]. The name of
// the store and a slash follow it.
func WithPrefix(prefix string) Option {
	return func(o *options) error {
		if prefix == "" || strings.ContainsRune(prefix, 0) {
			return invalid("WithPrefix", "the prefix is empty or holds a NUL")
		}
		o.prefix = prefix
		return nil
	}
}

func inNamespace(namespace string) Option {
	return func(o *options) error {
		o.namespace = namespace
		return nil
	}
}

// WithTimeout bounds every operation instead of [DefaultTimeout]; a shorter
// deadline of the caller's context goes before it. It should outlast an election
// of a leader, which takes etcd about two seconds by its default settings.
func WithTimeout(d time.Duration) Option {
	return func(o *options) error {
		if d <= 0 {
			return invalid("WithTimeout", "the timeout is not positive")
		}
		o.timeout = d
		return nil
	}
}

// WithLockTTL sets after how long the lock of a process that died is free,
// instead of [DefaultLockTTL]. etcd counts in whole seconds, and raises what is
// less than one and a half times its election timeout.
func WithLockTTL(d time.Duration) Option {
	return func(o *options) error {
		if d < time.Second {
			return invalid("WithLockTTL", "less than a second")
		}
		o.lockTTL = d
		return nil
	}
}

// WithSessionRetention sets how long etcd keeps a session's record that nobody
// renews, instead of [DefaultSessionRetention]. Less than the life of a session
// costs exchanges.
func WithSessionRetention(d time.Duration) Option {
	return func(o *options) error {
		if d < time.Second {
			return invalid("WithSessionRetention", "less than a second")
		}
		o.retention = d
		return nil
	}
}

func invalid(option, why string) error {
	return fmt.Errorf("%w: etcdstore: %s: %s", agrenting.ErrInvalidOption, option, why)
}

// Store keeps the record of one key and the sessions of a fleet in etcd. It is
// safe for concurrent use, by as many processes as there are.
type Store struct {
	db          *database
	records     agrenting.KeyWatcher
	sessions    *sessions
	closeClient func() error // nil: the client is the caller's
}

var (
	_ agrenting.KeyWatcher   = (*Store)(nil)
	_ agrenting.SessionStore = (*Store)(nil)
)

// New makes a store on a client. The client may have a namespace, and stays the
// caller's to close, after the store. name tells the keys of several fleets or
// agents apart: letters, digits, dots, dashes and underscores.
//
// It wants [WithSealingKey], or [WithPlaintext], and does not call etcd.
//
// The client should have DialKeepAliveTime and DialKeepAliveTimeout set, so that
// a connection that was cut without a word is given up in seconds and not in
// minutes; [Open] sees to that.
func New(client *clientv3.Client, name string, opts ...Option) (*Store, error) {
	if client == nil {
		return nil, invalid("New", "the client is nil")
	}
	if name == "" || len(name) > 128 || strings.Trim(name, nameRunes) != "" {
		return nil, invalid("New", "a name has 1 to 128 letters, digits, dots, dashes and underscores")
	}
	o := options{prefix: DefaultPrefix, timeout: DefaultTimeout, lockTTL: DefaultLockTTL, retention: DefaultSessionRetention}
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	switch {
	case len(o.sealing) == 0 && !o.plaintext:
		return nil, invalid("New", "a sealing key is missing: give WithSealingKey(agrenting.SealingKeyFromEnv…), "+
			"with a key made once by agrenting.NewSealingKey; WithPlaintext would store API keys in clear")
	case len(o.sealing) > 0 && o.plaintext:
		return nil, invalid("New", "WithSealingKey and WithPlaintext exclude each other")
	}
	db := &database{client: client, name: name, root: o.namespace + o.prefix + name + "/", timeout: o.timeout}
	s := &Store{db: db, records: &records{db}, sessions: newSessions(db, o.lockTTL, o.retention)}
	if !o.plaintext {
		sealed, err := agrenting.Sealed(s.records, o.sealing[0], o.sealing[1:]...)
		if err != nil {
			return nil, err
		}
		w, ok := sealed.(agrenting.KeyWatcher)
		if !ok {
			return nil, errors.New("etcdstore: a sealed store does not watch; etcdstore and agrenting do not fit together")
		}
		s.records = w
	}
	return s, nil
}

const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// Load implements [agrenting.KeyStore]. It is linearizable.
func (s *Store) Load(ctx context.Context) (agrenting.KeyRecord, agrenting.Revision, error) {
	return s.records.Load(ctx)
}

// Save implements [agrenting.KeyStore].
func (s *Store) Save(ctx context.Context, rec agrenting.KeyRecord, previous agrenting.Revision) (agrenting.Revision, error) {
	return s.records.Save(ctx, rec, previous)
}

// Watch implements [agrenting.KeyWatcher]. It goes on after compactions and lost
// connections. While etcd is away it yields errors, one for each attempt, and
// goes on trying if the loop does.
func (s *Store) Watch(ctx context.Context) iter.Seq2[agrenting.KeyRecord, error] {
	return s.records.Watch(ctx)
}

// LockSession implements [agrenting.SessionStore]. The lock is kept alive until
// it is released. If its holder cannot reach etcd for longer than the lock's
// time to live, it is lost, and what the holder saves then is refused.
func (s *Store) LockSession(ctx context.Context, id string) (unlock func(), err error) {
	return s.sessions.lock(ctx, id)
}

// LoadSession implements [agrenting.SessionStore].
func (s *Store) LoadSession(ctx context.Context, id string) ([]byte, error) {
	return s.sessions.load(ctx, id)
}

// SaveSession implements [agrenting.SessionStore].
func (s *Store) SaveSession(ctx context.Context, id string, sealed []byte) error {
	return s.sessions.save(ctx, id, sealed)
}

// Close waits, no longer than an operation takes, until locks are given back,
// and closes the client if [Open] has made it. Close the agrenting clients that
// use the store first.
func (s *Store) Close() error {
	s.sessions.close()
	if s.closeClient == nil {
		return nil
	}
	if err := s.closeClient(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcdstore: %w", err)
	}
	return nil
}

// String names the store, without secrets.
func (s *Store) String() string { return s.db.String() }

// GoString returns what String returns.
func (s *Store) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb and its flags: the client
// inside may hold a password.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String returns.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// tasks is work that nobody waits for, but Close.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// start runs f, unless the store is closed.
func (t *tasks) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}
