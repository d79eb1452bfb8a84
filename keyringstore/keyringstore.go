// Package keyringstore keeps the key of an agent, and its sessions, in the keyring
// of the operating system: the Keychain of macOS, the Credential Manager of
// Windows, and on other systems the Secret Service, which GNOME Keyring and
// KWallet provide on the D-Bus of the session.
//
//	store, err := keyringstore.New("my-program", "agent-1")
//	client, err := agrenting.New(agrenting.WithStore(store))
//
// It is meant for programs of a user who is logged in. Servers and containers
// usually have no keyring. Every call then fails with [ErrUnavailable], and nothing
// is kept anywhere else instead. Use [agrenting.FileStore] there, wrapped by
// [agrenting.Sealed].
package keyringstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/agrenting/agrenting-go"
)

// ErrUnavailable means that the keyring of the operating system cannot be used:
// there is none, it is locked, or it has refused.
var ErrUnavailable = errors.New("keyringstore: the keyring of the operating system cannot be used")

// Store is an [agrenting.Store] in the keyring. It is safe for concurrent use, also
// by other processes of the same user.
//
// Each record is one item. Its account is that of the store, a space, and the name
// of the record, such as "agent-1 key". Where the system bounds the size of items,
// a large record is divided into parts. They are items too, and are written before
// the item that names them is replaced.
//
// Keyrings have no compare-and-swap, so all access happens under a lock on a file,
// which the kernel releases when its holder dies. Processes that share a store must
// therefore agree on the folder of the lock, see [WithLockFolder].
type Store struct {
	service, account string
	lock             lockFile
	keyring          keyrings
	limit            int // bytes an item may have
}

var _ agrenting.Store = (*Store)(nil)

// keyrings is a keyring.
type keyrings interface {
	Get(service, account string) (string, error)
	Set(service, account, text string) error
	Delete(service, account string) error
}

// system is the keyring of the operating system.
type system struct{}

func (system) Get(service, account string) (string, error) { return keyring.Get(service, account) }
func (system) Set(service, account, text string) error     { return keyring.Set(service, account, text) }

func (system) Delete(service, account string) error { return keyring.Delete(service, account) }

const (
	// boundedItem fits into an item everywhere. Windows takes 2560 bytes. The
	// command for the Keychain has at most 4096, with the text in base64.
	boundedItem = 2400
	// freeItem is for the Secret Service, which has no bound but slows down.
	freeItem = 64 << 10
	// maxName bounds names, which count toward the same limits.
	maxName = 200
)

// Option configures [New].
type Option func(*options) error

type options struct{ lockFolder string }

// WithLockFolder puts the lock into another folder than "agrenting/keyring" in
// that of [os.UserConfigDir]. A missing folder is created with mode 0700. The folder is
// checked like that of an [agrenting.FileStore].
func WithLockFolder(folder string) Option {
	return func(o *options) error {
		if folder == "" {
			return fmt.Errorf("%w: WithLockFolder: the folder has no name", agrenting.ErrInvalidOption)
		}
		abs, err := filepath.Abs(folder)
		o.lockFolder = abs
		return err
	}
}

// New returns a store whose items have the given service and account, such as the
// name of the program and that of the agent. It does not access the keyring. Use
// [Store.Load] to find out whether there is one.
func New(service, account string, opts ...Option) (*Store, error) {
	if badName(service) || badName(account) {
		return nil, fmt.Errorf("%w: keyringstore: invalid service or account (want 1 to %d bytes, without control characters "+
			"and without a hyphen at the start)", agrenting.ErrInvalidOption, maxName)
	}
	var o options
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.lockFolder == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return nil, fmt.Errorf("%w: keyringstore: there is no folder for the lock (%w); set one with WithLockFolder",
				agrenting.ErrInvalidOption, err)
		}
		o.lockFolder = filepath.Join(dir, "agrenting", "keyring")
	}
	limit := freeItem
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		limit = boundedItem
	}
	lock := sumOf(service + "\x00" + account)[:32] + ".lock"
	return &Store{
		service: service, account: account, keyring: system{}, limit: limit, lock: lockFile(filepath.Join(o.lockFolder, lock)),
	}, nil
}

// badName reports whether a name is empty, too long, looks like a flag, or has a
// control character.
func badName(name string) bool {
	return name == "" || len(name) > maxName || name[0] == '-' ||
		strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// String names the store.
func (s *Store) String() string {
	return fmt.Sprintf("keyringstore.Store(%s, %s)", s.service, s.account)
}

// Load implements [agrenting.Store].
func (s *Store) Load(ctx context.Context, name string) (agrenting.Record, error) {
	return locked(ctx, s, s.item(name).load)
}

// Save implements [agrenting.Store]. If ctx ends while the keyring is at work, for
// example because it asks the user for a password, the record may still be saved.
func (s *Store) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	data = bytes.Clone(data) // ctx may end before it is used
	return locked(ctx, s, func() (agrenting.Revision, error) { return s.item(name).save(data, previous) })
}

// Remove deletes the named records from the keyring, or "key" if none is named. A
// key remains valid: revoke it first. A record that does not exist is not an error.
func (s *Store) Remove(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		names = []string{"key"}
	}
	_, err := locked(ctx, s, func() (none struct{}, err error) {
		for _, name := range names {
			err = errors.Join(err, s.item(name).remove())
		}
		return none, err
	})
	return err
}

// locked does f under the lock. Keyrings cannot be interrupted, and may wait for
// the user. So the caller returns when ctx ends, and f continues: it keeps the lock
// until it is done.
func locked[T any](ctx context.Context, s *Store, f func() (T, error)) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	var none T
	if err := ctx.Err(); err != nil {
		return none, fmt.Errorf("keyringstore: %w", err)
	}
	done := make(chan outcome, 1)
	go func() {
		o := outcome{err: fmt.Errorf("%w: the library that accesses it has panicked", ErrUnavailable)}
		defer func() {
			_ = recover() // o reports it
			done <- o
		}()
		unlock, err := s.lock.take(ctx)
		if err != nil {
			o = outcome{err: fmt.Errorf("keyringstore: %w", err)}
			return
		}
		defer unlock()
		v, err := f()
		o = outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
		return none, fmt.Errorf("keyringstore: waiting for the keyring: %w", ctx.Err())
	}
}

// unavailable is the error of a keyring that has failed.
func (s *Store) unavailable(err error) error {
	if errors.Is(err, keyring.ErrSetDataTooBig) {
		return fmt.Errorf("%w: %v: the text, or the names of service and account, are too long: %w", ErrUnavailable, s, err)
	}
	return fmt.Errorf("%w: %v: %w. %s. For programs without a logged-in user, use agrenting.FileStore wrapped by agrenting.Sealed",
		ErrUnavailable, s, err, advice(runtime.GOOS))
}

// advice says what to do about a keyring that has failed.
func advice(system string) string {
	switch system {
	case "darwin":
		return "Unlock the login keychain, and let this program use it"
	case "windows":
		return "Use an account that has a Credential Manager"
	default:
		return "Start a Secret Service such as GNOME Keyring or KWallet on the D-Bus of the session (DBUS_SESSION_BUS_ADDRESS), and unlock it"
	}
}
