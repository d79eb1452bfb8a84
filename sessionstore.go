package agrenting

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// SessionStore lets processes share sessions, so that many workers started
// together make one call of the authenticate endpoint, which locks an IP out
// after 10 a minute, and not one each. Set it by [WithSessionStore].
//
// A store keeps sealed records under ids and needs to understand neither: the
// SDK encrypts a record under a key derived from the API key, and an id names
// the origin and the key that a session belongs to without revealing them.
// Implementations must be safe for concurrent use.
type SessionStore interface {
	// LockSession waits, no longer than ctx allows, until no other process
	// holds the lock of id. It must be released when its holder dies.
	LockSession(ctx context.Context, id string) (unlock func(), err error)
	// LoadSession returns the record of id, nil when there is none. It is
	// called with and without the lock.
	LoadSession(ctx context.Context, id string) ([]byte, error)
	// SaveSession replaces the record of id. It is called under the lock.
	SaveSession(ctx context.Context, id string, sealed []byte) error
}

// FileSessionStore shares sessions between the processes of one host through
// files in a folder, which is made (0700) when it is missing. The files are
// 0600, replaced atomically, and locked by the kernel, so a process that dies
// blocks nobody. Their content is encrypted and of no use without the API key.
//
// Folders in which others may write, files that others may read, and symbolic
// links are refused with an error that says how to mend them: a folder that is
// there here, everything else when it is met, by [EventStoreFailed] and the
// StoreError of [Status], while the process goes on with a session of its own.
func FileSessionStore(folder string) (SessionStore, error) {
	if folder == "" {
		return nil, optionError("FileSessionStore", "the folder has no name")
	}
	abs, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("FileSessionStore: %w", err)
	}
	switch info, err := os.Stat(abs); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("FileSessionStore: %w", err)
	case !info.IsDir():
		return nil, optionError("FileSessionStore", "%s is not a folder", abs)
	default:
		if err := durable.CheckFolder(abs); err != nil {
			return nil, fmt.Errorf("FileSessionStore: %w", err)
		}
	}
	return &fileSessionStore{folder: abs}, nil
}

type fileSessionStore struct{ folder string }

// maxSessionFile bounds a sealed record.
const maxSessionFile = 64 << 10

func (s *fileSessionStore) file(id string) (*durable.File, error) {
	if id == "" || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%w: a session id is hexadecimal", ErrInvalidOption)
	}
	return durable.New(filepath.Join(s.folder, id+".session"), maxSessionFile, nil), nil
}

func (s *fileSessionStore) LockSession(ctx context.Context, id string) (func(), error) {
	f, err := s.file(id)
	if err != nil {
		return nil, err
	}
	return f.Lock(ctx)
}

func (s *fileSessionStore) LoadSession(_ context.Context, id string) ([]byte, error) {
	f, err := s.file(id)
	if err != nil {
		return nil, err
	}
	b, err := f.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

func (s *fileSessionStore) SaveSession(_ context.Context, id string, sealed []byte) error {
	f, err := s.file(id)
	if err != nil {
		return err
	}
	return f.Write(sealed)
}

// sharedSession is what a record holds: the session last bought, and whether
// the endpoint wants to be left alone, which goes for all processes.
type sharedSession struct {
	Version int    `json:"version"`
	Token   string `json:"token,omitempty"`
	// Expires is the platform's word, Skew how far its clock was ahead.
	Expires time.Time     `json:"expires,omitzero"`
	Skew    time.Duration `json:"skew,omitempty"`
	Bought  time.Time     `json:"bought,omitzero"`
	// NotBefore is when the endpoint may be called again after Failures in a
	// row; Locked tells that it was a lockout, Refused that the key was refused.
	NotBefore time.Time `json:"not_before,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	Locked    bool      `json:"locked,omitempty"`
	Refused   bool      `json:"refused,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}

const sharedSessionVersion = 1

// sessionID names the record of the sessions of one key at one origin.
func sessionID(o origin, key Credential) string {
	sum := sha256.Sum256([]byte("agrenting session id\x00" + o.String() + "\x00" + key.Reveal()))
	return hex.EncodeToString(sum[:16])
}

// sharedSessions is a SessionStore seen by one key at one origin.
type sharedSessions struct {
	store  SessionStore
	id     string
	sealer sealer
}

func newSharedSessions(store SessionStore, o origin, key Credential) *sharedSessions {
	id := sessionID(o, key)
	return &sharedSessions{
		store: store, id: id,
		sealer: sealer{secret: secret.New(key.Reveal()), info: "agrenting session v1 " + id},
	}
}

// load returns the record. One that cannot be read counts as none: it is going
// to be replaced.
func (s *sharedSessions) load(ctx context.Context) (sharedSession, error) {
	var rec sharedSession
	sealed, err := s.loadSealed(ctx)
	if err != nil || sealed == nil {
		return rec, err
	}
	plain, err := s.sealer.open(sealed)
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(plain, &rec); err != nil || rec.Version != sharedSessionVersion {
		return sharedSession{}, errUnsealable
	}
	return rec, nil
}

// loadSealed is LoadSession of the store. One that panics has failed, and costs
// sharing and nothing else; saveSealed and unlocked likewise.
func (s *sharedSessions) loadSealed(ctx context.Context) (sealed []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked("the session store", p)
		}
	}()
	return s.store.LoadSession(ctx, s.id)
}

func (s *sharedSessions) saveSealed(ctx context.Context, sealed []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked("the session store", p)
		}
	}()
	return s.store.SaveSession(ctx, s.id, sealed)
}

func unlocked(unlock func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked("the session store", p)
		}
	}()
	unlock()
	return nil
}

func (s *sharedSessions) save(ctx context.Context, rec sharedSession) error {
	rec.Version = sharedSessionVersion
	plain, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	sealed, err := s.sealer.seal(plain)
	if err != nil {
		return err
	}
	return s.saveSealed(ctx, sealed)
}

// lookWhileLocked is the pause between two looks at a record whose lock another
// process holds: it is doubled up to the longer one.
const (
	lookWhileLocked    = 10 * time.Millisecond
	maxLookWhileLocked = time.Second
)

// lock waits for the lock, or until a record is there that is usable: then the
// func that unlocks is nil. So of many who wait, all but one go on together and do not
// queue up for a lock that they have no use for.
func (s *sharedSessions) lock(ctx context.Context, usable func(sharedSession) (renew.Grant[*stamp], bool)) (func(), renew.Grant[*stamp], error) {
	type outcome struct {
		unlock func()
		err    error
	}
	var none renew.Grant[*stamp]
	// A store may bind the lock to its context, so that ends with the lock.
	lockCtx, cancel := context.WithCancel(ctx)
	ch := make(chan outcome, 1)
	go func() {
		out := outcome{err: errors.New("agrenting: the session store panicked")}
		defer func() {
			_ = recover() // the error says it
			ch <- out
		}()
		out.unlock, out.err = s.store.LockSession(lockCtx, s.id)
		if out.err == nil && out.unlock == nil {
			out.err = errors.New("agrenting: the session store gave a lock that cannot be unlocked")
		}
	}()
	t := time.NewTimer(lookWhileLocked)
	defer t.Stop()
	for pause := lookWhileLocked; ; {
		select {
		case out := <-ch:
			if out.err != nil {
				cancel()
				return nil, none, out.err
			}
			return func() { _ = unlocked(out.unlock); cancel() }, none, nil // or it ends with its context
		case <-t.C:
		}
		if rec, err := s.load(ctx); err == nil {
			if g, ok := usable(rec); ok {
				cancel()
				if out := <-ch; out.err == nil {
					_ = unlocked(out.unlock)
				}
				return nil, g, nil
			}
		}
		pause = min(2*pause, maxLookWhileLocked)
		t.Reset(pause)
	}
}
