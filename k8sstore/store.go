package k8sstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/agrenting/agrenting-go"
)

// DefaultTimeout bounds every operation, see [WithTimeout].
const DefaultTimeout = 5 * time.Second

// Option configures a [Store].
type Option func(*options) error

type options struct {
	sealing   []agrenting.SealingKey
	plaintext bool
	insecure  bool
	timeout   time.Duration
}

// WithSealingKey seals records before the API server gets them. key seals; key and
// older open, see [agrenting.Sealed]. Records are bound to their namespace and to the
// name of the store, such as "production/writer/".
func WithSealingKey(key agrenting.SealingKey, older ...agrenting.SealingKey) Option {
	return func(o *options) error {
		o.sealing = append([]agrenting.SealingKey{key}, older...)
		return nil
	}
}

// WithPlaintext stores API keys unencrypted. Anyone who can read the Secrets, etcd, or a
// backup can read them. Use it if that is acceptable, or to move the key from plain to
// sealed:
//
//	plain, err := k8sstore.Open(cfg, k8sstore.WithPlaintext())
//	sealed, err := agrenting.Sealed(plain, "production/writer/", key)
//	err = agrenting.Reseal(ctx, plain, sealed)
func WithPlaintext() Option {
	return func(o *options) error {
		o.plaintext = true
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

// WithInsecure allows plain http to other hosts, and TLS without verification of the
// server. Anyone on the network path can then read or change the traffic.
func WithInsecure() Option {
	return func(o *options) error {
		o.insecure = true
		return nil
	}
}

func invalid(option, why string) error {
	return fmt.Errorf("%w: k8sstore: %s: %s", agrenting.ErrInvalidOption, option, why)
}

// Store keeps the records of a fleet in Secrets of a namespace. It is safe for
// concurrent use, by any number of processes. It implements [agrenting.Store] and
// [agrenting.Watcher].
type Store struct {
	records watchable
	name    string
	close   func()
}

type watchable interface {
	agrenting.Store
	agrenting.Watcher
}

var _ watchable = (*Store)(nil)

// newStore seals the records as the options say.
func newStore(r *records, o options) (*Store, error) {
	switch {
	case len(o.sealing) == 0 && !o.plaintext:
		return nil, invalid("Open", "a sealing key is missing: give WithSealingKey the result of agrenting.ParseSealingKey, "+
			"for a key made once with agrenting.NewSealingKey; WithPlaintext would store API keys unencrypted")
	case len(o.sealing) > 0 && o.plaintext:
		return nil, invalid("Open", "WithSealingKey and WithPlaintext cannot be combined")
	case o.plaintext:
		return &Store{records: r, name: r.String(), close: r.close}, nil
	}
	sealed, err := agrenting.Sealed(r, r.namespace+"/"+r.name+"/", o.sealing[0], o.sealing[1:]...)
	if err != nil {
		return nil, err
	}
	w, ok := sealed.(watchable)
	if !ok {
		return nil, errors.New("k8sstore: a sealed store is not a Watcher; use versions of k8sstore and agrenting that match")
	}
	return &Store{records: w, name: r.String(), close: r.close}, nil
}

// Load implements [agrenting.Store].
func (s *Store) Load(ctx context.Context, name string) (agrenting.Record, error) {
	return s.records.Load(ctx, name)
}

// Save implements [agrenting.Store]. Labels and annotations that others have added to
// the Secret are kept.
func (s *Store) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	return s.records.Save(ctx, name, data, previous)
}

// Watch implements [agrenting.Watcher]. It resumes streams that the API server ends,
// and loads the record again if the server no longer has the changes since. It ends
// with an error that matches [ErrUnavailable] when the API server cannot be reached.
func (s *Store) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	return s.records.Watch(ctx, name)
}

// Close closes the connections of the store. Close the agrenting clients that use the
// store first.
func (s *Store) Close() error {
	s.close()
	return nil
}

// String names the store, without secrets.
func (s *Store) String() string { return s.name }

// GoString returns what String returns.
func (s *Store) GoString() string { return s.String() }

// Format writes what String returns, for every verb and flag: the client inside
// may have a token.
func (s *Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String returns.
func (s *Store) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns.
func (s *Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
