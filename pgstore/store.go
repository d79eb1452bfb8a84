package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/agrenting/agrenting-go"
)

// Defaults.
const (
	DefaultTable        = "agrenting_records"
	DefaultTimeout      = 5 * time.Second
	DefaultPollInterval = time.Second
)

// Option configures a [Store].
type Option func(*options) error

type options struct {
	sealing   []agrenting.SealingKey
	plaintext bool
	insecure  bool
	listen    bool
	table     string
	timeout   time.Duration
	poll      time.Duration
}

func newOptions(opts []Option) (options, error) {
	o := options{table: DefaultTable, timeout: DefaultTimeout, poll: DefaultPollInterval}
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return o, err
		}
	}
	switch {
	case len(o.sealing) == 0 && !o.plaintext:
		return o, invalid("New", "a sealing key is missing. Pass WithSealingKey the result of agrenting.ParseSealingKey, "+
			"for a key made once with agrenting.NewSealingKey; WithPlaintext would store API keys unencrypted")
	case len(o.sealing) > 0 && o.plaintext:
		return o, invalid("New", "WithSealingKey and WithPlaintext cannot be combined")
	}
	return o, nil
}

// WithSealingKey seals records before PostgreSQL gets them. key seals; key and older
// open, see [agrenting.Sealed]. Records are bound to the table and the name of the
// store, such as "agrenting_records/writer/".
func WithSealingKey(key agrenting.SealingKey, older ...agrenting.SealingKey) Option {
	return func(o *options) error {
		o.sealing = append([]agrenting.SealingKey{key}, older...)
		return nil
	}
}

// WithPlaintext stores API keys unencrypted. Anyone who can read the table, a replica or
// a backup can read them.
func WithPlaintext() Option {
	return func(o *options) error {
		o.plaintext = true
		return nil
	}
}

// WithInsecureConnection lets [Open] accept connections that are not encrypted, or
// whose server is not verified. Anyone on the network path can then read or replace
// records, and may learn the password.
func WithInsecureConnection() Option {
	return func(o *options) error {
		o.insecure = true
		return nil
	}
}

// WithListen makes [Store.Watch] use LISTEN, on one more connection for the whole
// store. It has no effect through a transaction pooler: the store detects one, and
// polls.
func WithListen() Option {
	return func(o *options) error {
		o.listen = true
		return nil
	}
}

// WithPollInterval sets how often [Store.Watch] loads a record, instead of
// [DefaultPollInterval]. While LISTEN works, it does so at ten times the interval, to
// notice rows that were changed with other programs.
func WithPollInterval(d time.Duration) Option {
	return func(o *options) error {
		if d <= 0 {
			return invalid("WithPollInterval", "the interval must be positive")
		}
		o.poll = d
		return nil
	}
}

// tableName is a lowercase name, possibly with a schema before it.
var tableName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$`)

// WithTable sets the table instead of [DefaultTable], such as "agents.records". It
// consists of lowercase letters, digits and underscores, with an optional schema.
func WithTable(table string) Option {
	return func(o *options) error {
		if !tableName.MatchString(table) {
			return invalid("WithTable", "invalid table (want lowercase letters, digits, and underscores, "+
				"such as agrenting_records or app.agrenting_records)")
		}
		o.table = table
		return nil
	}
}

// WithTimeout bounds every operation instead of [DefaultTimeout]. A shorter deadline
// of the caller's context takes precedence.
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
	return fmt.Errorf("%w: pgstore: %s: %s", agrenting.ErrInvalidOption, option, why)
}

// Store keeps the records of a fleet in PostgreSQL. It is safe for concurrent use, by
// any number of processes. It implements [agrenting.Store] and [agrenting.Watcher].
type Store struct {
	records watchable
	plain   *records
	ownPool bool
}

type watchable interface {
	agrenting.Store
	agrenting.Watcher
}

var _ watchable = (*Store)(nil)

var storeName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

// New returns a store that uses pool. The pool remains the caller's to close, after
// the store. The caller is also responsible for its TLS: [WithInsecureConnection] has
// no effect. name distinguishes the stores of several fleets or agents. It consists
// of letters, digits, dots, dashes and underscores.
//
// New requires [WithSealingKey] or [WithPlaintext]. It does not connect.
func New(pool *pgxpool.Pool, name string, opts ...Option) (*Store, error) {
	if pool == nil {
		return nil, invalid("New", "the pool is nil")
	}
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	return newStore(pool, name, o)
}

func newStore(pool *pgxpool.Pool, name string, o options) (*Store, error) {
	if !storeName.MatchString(name) {
		return nil, invalid("New", "invalid name (want 1 to 128 letters, digits, dots, dashes, and underscores)")
	}
	r := newRecords(pool, name, o)
	s := &Store{records: r, plain: r}
	if !o.plaintext {
		sealed, err := agrenting.Sealed(r, o.table+"/"+name+"/", o.sealing[0], o.sealing[1:]...)
		if err != nil {
			return nil, err
		}
		w, ok := sealed.(watchable)
		if !ok {
			return nil, errors.New("pgstore: a sealed store is not a Watcher; use versions of pgstore and agrenting that match")
		}
		s.records = w
	}
	if o.listen {
		r.listener = startListener(r)
	}
	return s, nil
}

// Load implements [agrenting.Store]. It reads from the primary only. A missing table
// is an error, but not [agrenting.ErrNoRecord].
func (s *Store) Load(ctx context.Context, name string) (agrenting.Record, error) {
	return s.records.Load(ctx, name)
}

// Save implements [agrenting.Store]. If a synchronous standby does not confirm the commit in
// time, Save fails, but the primary has the new record, and other processes may use it.
func (s *Store) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	return s.records.Save(ctx, name, data, previous)
}

// Watch implements [agrenting.Watcher]. It ends with an error that matches
// [ErrUnavailable] when PostgreSQL cannot be reached.
func (s *Store) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return s.records.Watch(ctx, name)
}

// Schema returns the SQL that creates the table, for a migration tool.
func (s *Store) Schema() string { return s.plain.schema() }

// CreateSchema creates the table if it does not exist. The user needs the privilege to
// do so. Programs that only load and save records need SELECT, INSERT and UPDATE on
// the table.
func (s *Store) CreateSchema(ctx context.Context) error { return s.plain.createSchema(ctx) }

// Close ends the connection of [WithListen], and closes the pool if [Open] has made
// it. Close the agrenting clients that use the store first. Close waits for
// connections to end, up to 15 s if the server does not respond.
func (s *Store) Close() error {
	s.plain.listener.stop()
	if s.ownPool {
		s.plain.pool.Close()
	}
	return nil
}

// String names the store, without secrets.
func (s *Store) String() string { return s.plain.String() }

// GoString returns what String returns.
func (s *Store) GoString() string { return s.String() }

// Format writes what String returns, for every verb and flag: the pool inside may
// have a password.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String returns.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
