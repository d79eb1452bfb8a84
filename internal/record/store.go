package record

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Errors of stores. The root package exports them under names of its own.
var (
	ErrNoRecord = errors.New("agrenting: the store has no such record")
	ErrConflict = errors.New("agrenting: conflicting write")
	ErrReadOnly = errors.New("agrenting: the store is read-only")
	// ErrInvalid says that a record is not one that this version can use. The
	// record is left intact.
	ErrInvalid = errors.New("agrenting: the stored record cannot be used")
	// ErrOtherVersion says so of a record that another version of the SDK wrote.
	// It also matches ErrInvalid.
	ErrOtherVersion = fmt.Errorf("%w", ErrInvalid)
)

// Raw is the data of one named record and its revision.
type Raw struct {
	Data     []byte
	Revision string
}

// Store is a public store as this package uses it. It must not panic.
type Store interface {
	Load(ctx context.Context, name string) (Raw, error)
	Save(ctx context.Context, name string, data []byte, previous string) (revision string, err error)
	// Watch returns nil if the store cannot be watched.
	Watch(ctx context.Context, name string) iter.Seq2[Raw, error]
}

// Notifier is an optional interface of a [Store] that lives in this process. It reports
// changes without a goroutine for each follower, so thousands of clients can follow one
// store.
type Notifier interface {
	// Notify calls changed after each change of a record, until stop is called. changed
	// returns at once. stop is nil if the store cannot notify.
	Notify(name string, changed func()) (stop func())
}

// notify is [Notifier] for any store.
func notify(s Store, name string, changed func()) (stop func()) {
	if n, ok := s.(Notifier); ok {
		return n.Notify(name, changed)
	}
	return nil
}

// warningKey is the key of [WithWarning].
type warningKey struct{}

// WithWarning returns a context that tells a store, through all stores around it, where
// to report what it accepts and its user should change.
func WithWarning(ctx context.Context, warn func(text string)) context.Context {
	return context.WithValue(ctx, warningKey{}, warn)
}

// WarningOf returns the function of [WithWarning], or nil.
func WarningOf(ctx context.Context) func(text string) {
	warn, _ := ctx.Value(warningKey{}).(func(text string))
	return warn
}
