// Package keyringstore keeps the key of an agent in the keyring of the operating
// system: the Keychain of macOS, the Credential Manager of Windows, and on other
// systems the Secret Service, which is what GNOME Keyring and KWallet speak on
// the D-Bus of the session.
//
//	store, err := keyringstore.New("my-program", "agent-1")
//	client, err := agrenting.New(agrenting.WithKeyStore(store))
//
// It is meant for programs of a person who is logged in. On servers and in
// containers there is mostly no keyring; every call then fails with
// [ErrUnavailable], and nothing is kept anywhere else instead. Use
// [agrenting.FileStore] there, wrapped by [agrenting.Sealed].
package keyringstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/agrenting/agrenting-go"
)

// ErrUnavailable says that the keyring of the operating system cannot be used:
// there is none, it is locked, or it has refused.
var ErrUnavailable = errors.New("keyringstore: the keyring of the operating system cannot be used")

// Store is an [agrenting.KeyStore] in the keyring. It may be used by many
// goroutines, and together with the stores of other processes of the same user.
//
// The record is one item. Where the system bounds the size of items, a large
// one is divided: its parts are items of their own, written beside the old
// ones before the item that names them is replaced.
//
// Keyrings have no compare-and-swap, so all access happens under a lock, which
// is a file that the kernel unlocks when its holder dies. Processes that use
// one item must therefore agree on the folder of the lock, see
// [WithLockFolder].
type Store struct {
	service, account string
	lock             lockFile
	keyring          keyrings
	limit            int // bytes an item may have
}

var _ agrenting.KeyStore = (*Store)(nil)

// keyrings is what a keyring can do.
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
	// boundedItem fits into an item everywhere: Windows takes 2560 bytes, and
	// the command that talks to the Keychain 4096, with the text in base64.
	boundedItem = 2400
	// freeItem is for the Secret Service, which sets no bound but slows down.
	freeItem = 64 << 10
	// maxName bounds names, which take from the same room.
	maxName = 200
)

// Option configures [New].
type Option func(*options) error

type options struct{ lockFolder string }

// WithLockFolder puts the lock into a folder other than "agrenting/keyring" in
// that of [os.UserConfigDir]. It is made (0700) when it is missing. One that
// others may write to is refused, unless it is sticky.
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

// New describes the store of one item, which keyrings find by service and
// account: the name of the program, say, and that of the agent. It does not
// touch the keyring; [Store.Load] is a way to find out whether there is one.
func New(service, account string, opts ...Option) (*Store, error) {
	for _, n := range []struct{ what, name string }{{"service", service}, {"account", account}} {
		if problem := nameProblem(n.name); problem != "" {
			return nil, fmt.Errorf("%w: keyringstore: the name of the %s %s", agrenting.ErrInvalidOption, n.what, problem)
		}
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
			return nil, fmt.Errorf("%w: keyringstore: there is no folder for the lock (%w); name one by WithLockFolder",
				agrenting.ErrInvalidOption, err)
		}
		o.lockFolder = filepath.Join(dir, "agrenting", "keyring")
	}
	sum := sha256.Sum256([]byte(service + "\x00" + account))
	limit := freeItem
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		limit = boundedItem
	}
	return &Store{
		service: service, account: account, keyring: system{}, limit: limit,
		lock: lockFile(filepath.Join(o.lockFolder, hex.EncodeToString(sum[:16])+".lock")),
	}, nil
}

func nameProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxName:
		return fmt.Sprintf("is %d bytes long, and may have %d", len(name), maxName)
	case strings.HasPrefix(name, "-"):
		return "begins with a hyphen"
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "has a control character"
	default:
		return ""
	}
}

// String names the item.
func (s *Store) String() string {
	return fmt.Sprintf("keyringstore.Store(%s, %s)", s.service, s.account)
}

// Load implements [agrenting.KeyStore].
func (s *Store) Load(ctx context.Context) (agrenting.KeyRecord, agrenting.Revision, error) {
	type loaded struct {
		rec agrenting.KeyRecord
		rev agrenting.Revision
	}
	l, err := locked(ctx, s, func() (loaded, error) {
		rec, rev, err := s.load()
		return loaded{rec, rev}, err
	})
	return l.rec, l.rev, err
}

// Save implements [agrenting.KeyStore]. When ctx ends while the keyring is at
// work, for example because it asks the user for a password, it is not known
// whether the record will be saved.
func (s *Store) Save(ctx context.Context, rec agrenting.KeyRecord, previous agrenting.Revision) (agrenting.Revision, error) {
	b, err := rec.Encode()
	if err != nil {
		return "", err
	}
	return locked(ctx, s, func() (agrenting.Revision, error) { return s.save(b, previous) })
}

// Remove deletes the record from the keyring. The key stays valid: revoke it
// before. It is no error if there is none.
func (s *Store) Remove(ctx context.Context) error {
	_, err := locked(ctx, s, func() (struct{}, error) { return struct{}{}, s.remove() })
	return err
}

// locked does f under the lock. Keyrings cannot be interrupted, and may wait
// for a person, so the caller leaves when ctx ends, and f goes on: it keeps the
// lock until it is done.
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
		o := outcome{err: fmt.Errorf("%w: the library that talks to it has panicked", ErrUnavailable)}
		defer func() {
			_ = recover() // o says it
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
		return fmt.Errorf("%w: %v: the text, or the names of service and account, are too long for it: %w", ErrUnavailable, s, err)
	}
	return fmt.Errorf("%w: %v: %w; %s", ErrUnavailable, s, err, advice(runtime.GOOS))
}

// advice says what to do about a keyring that has failed.
func advice(system string) string {
	const instead = "where nobody is logged in, use agrenting.FileStore wrapped by agrenting.Sealed instead"
	switch system {
	case "darwin":
		return "is the login keychain unlocked, and may this program use it? " + instead
	case "windows":
		return "does this account have a Credential Manager? " + instead
	default:
		return "a Secret Service such as GNOME Keyring or KWallet has to run, unlocked, on the D-Bus of the session " +
			"(DBUS_SESSION_BUS_ADDRESS); " + instead
	}
}
