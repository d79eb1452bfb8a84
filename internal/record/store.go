package record

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Errors of stores. The root package exports them under different names.
var (
	ErrNoRecord = errors.New("agrenting: the store has no such record")
	ErrConflict = errors.New("agrenting: conflicting write")
	ErrReadOnly = errors.New("agrenting: the store is read-only")
	// ErrInvalid means that this version cannot use a record. The record is left
	// intact.
	ErrInvalid = errors.New("agrenting: the stored record cannot be used")
	// ErrOtherVersion means that another version of the SDK wrote the record. It also
	// matches ErrInvalid.
	ErrOtherVersion = fmt.Errorf("%w", ErrInvalid)
)

// Raw is the data of one named record and its revision.
type Raw struct {
	Data     []byte
	Revision string
}

// Store is a public store in the form that this package uses. Its methods must not
// panic.
type Store interface {
	Load(ctx context.Context, name string) (Raw, error)
	Save(ctx context.Context, name string, data []byte, previous string) (revision string, err error)
	// Watch returns nil if the store cannot be watched.
	Watch(ctx context.Context, name string) iter.Seq2[Raw, error]
}

// Notifier is an optional interface of a [Store] in this process. It reports changes
// without a goroutine for each follower, so that thousands of clients can follow one
// store.
type Notifier interface {
	// Notify calls changed after each change of a record, until stop is called. changed
	// must return at once. stop is nil if the store cannot notify.
	Notify(name string, changed func()) (stop func())
}

// notify is like [Notifier], for any store.
func notify(s Store, name string, changed func()) (stop func()) {
	if n, ok := s.(Notifier); ok {
		return n.Notify(name, changed)
	}
	return nil
}

// warningKey is the key of [WithWarning].
type warningKey struct{}

// WithWarning returns a context for calls of a store. warn is called about what the
// store accepts but the user should change. The stores around that store pass the
// context on.
func WithWarning(ctx context.Context, warn func(text string)) context.Context {
	return context.WithValue(ctx, warningKey{}, warn)
}

// WarningOf returns the function of [WithWarning], or nil.
func WarningOf(ctx context.Context) func(text string) {
	warn, _ := ctx.Value(warningKey{}).(func(text string))
	return warn
}
