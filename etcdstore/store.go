package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/agrenting/agrenting-go"
)

// Defaults.
const (
	DefaultPrefix  = "/agrenting/"
	DefaultTimeout = 5 * time.Second
)

// Option configures a [Store].
type Option func(*options) error

type options struct {
	sealing           []agrenting.SealingKey
	plaintext         bool
	namespace, prefix string
	timeout           time.Duration
}

// WithSealingKey seals records before etcd gets them. key seals; key and older
// open, see [agrenting.Sealed]. Records are bound to the etcd key that they are
// under, such as "/agrenting/writer/".
func WithSealingKey(key agrenting.SealingKey, older ...agrenting.SealingKey) Option {
	return func(o *options) error {
		o.sealing = append([]agrenting.SealingKey{key}, older...)
		return nil
	}
}

// WithPlaintext stores API keys unencrypted. Anyone who can read etcd, a snapshot or
// a backup of it can read them. Use it if etcd itself is encrypted, or to move the
// key from plain to sealed:
//
//	plain, err := etcdstore.New(client, "writer", etcdstore.WithPlaintext())
//	sealed, err := agrenting.Sealed(plain, "/agrenting/writer/", key)
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
			return invalid("WithPrefix", "the prefix is empty or contains a NUL")
		}
		o.prefix = prefix
		return nil
	}
}

// WithTimeout bounds every operation instead of [DefaultTimeout]. A shorter
// deadline of the caller's context takes precedence. The timeout should be longer
// than an election of a leader, which takes etcd about two seconds with its
// default settings.
func WithTimeout(d time.Duration) Option {
	return func(o *options) error {
		if d <= 0 {
			return invalid("WithTimeout", "the timeout must be positive")
		}
		o.timeout = d
		return nil
	}
}

func invalid(option, why string) error {
	return fmt.Errorf("%w: etcdstore: %s: %s", agrenting.ErrInvalidOption, option, why)
}

// Store keeps the records of a fleet in etcd. It is safe for concurrent use, by
// any number of processes. It implements [agrenting.Store] and
// [agrenting.Watcher].
type Store struct {
	records     watchable
	name        string
	closeClient func() error // nil: the client belongs to the caller
}

type watchable interface {
	agrenting.Store
	agrenting.Watcher
}

var _ watchable = (*Store)(nil)

// New returns a store that uses client. The client may have a namespace, and
// belongs to the caller, who closes it after the last use of the store. name distinguishes
// the stores of several fleets or agents. It consists of letters, digits, dots, dashes, and
// underscores.
//
// New requires [WithSealingKey] or [WithPlaintext]. It does not call etcd.
//
// Set DialKeepAliveTime and DialKeepAliveTimeout of the client, so that a
// connection that was cut silently is closed within seconds instead of minutes.
// [Open] does so.
func New(client *clientv3.Client, name string, opts ...Option) (*Store, error) {
	if client == nil {
		return nil, invalid("New", "the client is nil")
	}
	o, err := newOptions(name, opts)
	if err != nil {
		return nil, err
	}
	return newStore(client, name, o)
}

// newOptions checks the name of a store and its options.
func newOptions(name string, opts []Option) (options, error) {
	o := options{prefix: DefaultPrefix, timeout: DefaultTimeout}
	if name == "" || len(name) > 128 || strings.Trim(name, nameRunes) != "" {
		return o, invalid("New", "invalid name (want 1 to 128 letters, digits, dots, dashes, and underscores)")
	}
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return o, err
		}
	}
	switch {
	case len(o.sealing) == 0 && !o.plaintext:
		return o, invalid("New", "a sealing key is missing: give WithSealingKey the result of agrenting.ParseSealingKey, "+
			"for a key made once with agrenting.NewSealingKey; WithPlaintext would store API keys unencrypted")
	case len(o.sealing) > 0 && o.plaintext:
		return o, invalid("New", "WithSealingKey and WithPlaintext cannot be combined")
	}
	return o, nil
}

func newStore(client *clientv3.Client, name string, o options) (*Store, error) {
	r := &records{client: client, name: name, root: o.namespace + o.prefix + name + "/", timeout: o.timeout}
	if o.plaintext {
		return &Store{records: r, name: r.String()}, nil
	}
	sealed, err := agrenting.Sealed(r, r.root, o.sealing[0], o.sealing[1:]...)
	if err != nil {
		return nil, err
	}
	w, ok := sealed.(watchable)
	if !ok {
		return nil, errors.New("etcdstore: a sealed store is not a Watcher; use versions of etcdstore and agrenting that match")
	}
	return &Store{records: w, name: r.String()}, nil
}

const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// Load implements [agrenting.Store].
func (s *Store) Load(ctx context.Context, name string) (agrenting.Record, error) {
	return s.records.Load(ctx, name)
}

// Save implements [agrenting.Store].
func (s *Store) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	return s.records.Save(ctx, name, data, previous)
}

// Watch implements [agrenting.Watcher]. It survives compactions and changes of the
// leader. It ends with an error that matches [ErrUnavailable] when etcd cannot be
// reached.
func (s *Store) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return s.records.Watch(ctx, name)
}

// Close closes the client if [Open] has made it. Close the agrenting clients that
// use the store first.
func (s *Store) Close() error {
	if s.closeClient == nil {
		return nil
	}
	if err := s.closeClient(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcdstore: %w", err)
	}
	return nil
}

// String names the store, without secrets.
func (s *Store) String() string { return s.name }

// GoString returns what String returns.
func (s *Store) GoString() string { return s.String() }

// Format writes what String returns, for every verb and flag: the client inside
// may have a password.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String returns.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
