package agrenting

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/agrenting/agrenting-go/internal/durable"
)

// maxRecordFile bounds a stored record.
const maxRecordFile = 256 << 10

// FileStore keeps the record in a file of 0600, replaced atomically and synced
// to the disk, and locked by the kernel while it is replaced, so that processes
// of one host can share it. The lock is a file of its own beside it, with ".lock"
// at its end.
//
// A folder that is missing is made, for the owner alone (0700); one that is there
// keeps its mode. Symbolic links in place of the file, files that others can read,
// and folders that others can write to, unless they are sticky as /tmp is, are
// refused, with the command that mends them in the error. On Windows modes are not
// looked at. Secrets are in clear in the file unless the store is wrapped by
// [Sealed].
//
// Nothing is touched until the first Load or Save.
func FileStore(path string) (KeyStore, error) {
	if path == "" {
		return nil, optionError("FileStore", "the path is empty")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("FileStore: %w", err)
	}
	return newFileStore(abs, nil), nil
}

func newFileStore(path string, before func(durable.Step) error) *fileStore {
	return &fileStore{file: durable.New(path, maxRecordFile, before)}
}

type fileStore struct{ file *durable.File }

// String names the file.
func (s *fileStore) String() string { return "agrenting.FileStore(" + s.file.Path() + ")" }

func (s *fileStore) Load(ctx context.Context) (KeyRecord, Revision, error) {
	if err := ctx.Err(); err != nil {
		return KeyRecord{}, "", err
	}
	b, err := s.file.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return KeyRecord{}, "", fmt.Errorf("%w: %s does not exist yet", ErrNoCredential, s.file.Path())
	}
	if err != nil {
		return KeyRecord{}, "", fmt.Errorf("agrenting: key store: %w", err)
	}
	rec, err := DecodeKeyRecord(b)
	if err != nil {
		return KeyRecord{}, "", fmt.Errorf("%s: %w", s.file.Path(), err)
	}
	return rec, revisionOf(b), nil
}

// revisionOf is the hash of the content, so that an edit by hand counts as a
// change too.
func revisionOf(b []byte) Revision {
	sum := sha256.Sum256(b)
	return Revision(hex.EncodeToString(sum[:16]))
}

// fileContent is what is written for a record: its encoding, and in front a
// member that no other write has. Without that, a record that comes back to
// what it was would come back to its revision, and a writer who has missed
// what happened in between would not notice. Decoding passes over it.
func fileContent(rec KeyRecord) ([]byte, error) {
	b, err := rec.Encode()
	if err != nil {
		return nil, err
	}
	return append([]byte("{\n  \"write\": \""+rand.Text()+"\","), b[1:]...), nil
}

// lockTimeout bounds the wait for another process's write, which takes
// milliseconds.
const lockTimeout = 10 * time.Second

func (s *fileStore) Save(ctx context.Context, rec KeyRecord, previous Revision) (Revision, error) {
	b, err := fileContent(rec)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	unlock, err := s.file.Lock(ctx)
	if err != nil {
		return "", fmt.Errorf("agrenting: key store: %w", err)
	}
	defer unlock()
	old, err := s.file.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if previous != "" {
			return "", fmt.Errorf("%w: %s has been removed", ErrConflictingWrite, s.file.Path())
		}
	case err != nil:
		return "", fmt.Errorf("agrenting: key store: %w", err)
	case revisionOf(old) != previous:
		return "", fmt.Errorf("%w: %s was changed by another process", ErrConflictingWrite, s.file.Path())
	}
	if err := s.file.Write(b); err != nil {
		return "", fmt.Errorf("agrenting: key store: %w", err)
	}
	return revisionOf(b), nil
}

// ReadOnlyStore makes a store of a source whose keys somebody else manages,
// such as [FileSource] over a mounted secret. Keys can be used, but not
// rotated: Save is [ErrReadOnlyStore].
func ReadOnlyStore(src CredentialSource) KeyStore { return &readOnlyStore{src: src} }

type readOnlyStore struct{ src CredentialSource }

func (s *readOnlyStore) Load(ctx context.Context) (KeyRecord, Revision, error) {
	c, err := s.src.Credential(ctx)
	if err != nil {
		return KeyRecord{}, "", err
	}
	return KeyRecord{Generation: 1, Current: StoredKey{Credential: c}}, Revision(c.Fingerprint()), nil
}

func (s *readOnlyStore) Save(context.Context, KeyRecord, Revision) (Revision, error) {
	return "", fmt.Errorf("%w: whoever provides this key has to rotate it; "+
		"to let the SDK do it, use WithKeyStore with FileStore or another writable store, seeded with the key", ErrReadOnlyStore)
}
