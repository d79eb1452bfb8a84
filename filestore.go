package agrenting

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/record"
)

// FileStore keeps each record in a file of its own in folder, such as
// "/var/lib/writer/keys". Files have mode 0600. They are replaced atomically,
// synced to the disk, and locked by the kernel while they are replaced, so that
// the processes of one host can share the folder. Locks are kept in the folder
// ".locks" in it.
//
// A missing folder is created with mode 0700 by the first Save. An existing one
// keeps its mode. Symbolic links in place of a file, files that others can read,
// and folders that others can write to, unless they are sticky like /tmp, are
// refused; the error contains the command that fixes this. Modes are not checked
// on Windows. Secrets are in clear in the files unless the store is wrapped in
// [Sealed].
//
// FileStore touches nothing until the first Load or Save. It returns an
// [ErrInvalidOption] if the folder's name is empty or names a file.
func FileStore(folder string) (Store, error) {
	if folder == "" {
		return nil, optionError("FileStore", "the folder has no name")
	}
	abs, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("FileStore: %w", err)
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return nil, optionError("FileStore", "%s is a file, and FileStore takes a folder. "+
			"If an older build of this package keeps a key in that file, its format is not supported any more: "+
			"choose a new folder and fill it with a live key", quotePath(abs))
	}
	return newFileStore(abs, nil), nil
}

func newFileStore(folder string, before func(durable.Step) error) *fileStore {
	return &fileStore{folder: folder, before: before}
}

type fileStore struct {
	folder string
	before func(durable.Step) error // of each step of a write; for tests
	seen   atomic.Bool              // the folder was there once
}

// String names the folder.
func (s *fileStore) String() string { return "agrenting.FileStore(" + s.folder + ")" }

const (
	recordExtension = ".record"
	lockFolder      = ".locks"
	// olderExtension is that of the files of older builds.
	olderExtension = ".json"
	// maxRecordFile leaves room for a sealed record and the header.
	maxRecordFile = 2 * record.MaxSize
)

// file describes the file of a record. Windows reserves some names, with any
// extension; an underscore makes them ordinary.
func (s *fileStore) file(name string) (*durable.File, error) {
	if problem := record.NameProblem(name); problem != "" {
		return nil, optionError("FileStore", "the record's name %s", problem)
	}
	label, _, _ := strings.Cut(name, ".")
	switch {
	case label == "con", label == "prn", label == "aux", label == "nul",
		len(label) == 4 && (label[:3] == "com" || label[:3] == "lpt"):
		name = "_" + name
	}
	f := durable.New(filepath.Join(s.folder, name+recordExtension), maxRecordFile, s.before)
	return f.LockedBy(filepath.Join(s.folder, lockFolder, name+".lock")), nil
}

// fileMagic begins the first line of a file, after which comes a random word: it
// makes the revision of each write unique.
const (
	fileMagic    = fileMagicAny + "2 "
	fileMagicAny = "agrenting-record "
)

// contentOf returns what is written for data.
func contentOf(data []byte) []byte {
	return append([]byte(fileMagic+rand.Text()+"\n"), data...)
}

// revisionOf is the hash of the content, so that an edit with another program
// counts as a change, too.
func revisionOf(content []byte) Revision {
	sum := sha256.Sum256(content)
	return Revision(hex.EncodeToString(sum[:16]))
}

func (s *fileStore) Load(ctx context.Context, name string) (Record, error) {
	f, err := s.file(name)
	if err != nil {
		return Record{}, err
	}
	if ctx.Err() != nil {
		return Record{}, context.Cause(ctx)
	}
	return s.read(f)
}

// read returns the revision also of a damaged file, so that a record that is worth
// nothing can be replaced.
func (s *fileStore) read(f *durable.File) (Record, error) {
	content, err := f.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Record{}, s.missing(f.Path())
	case err != nil:
		return Record{}, fmt.Errorf("agrenting: store: %w", err)
	}
	s.seen.Store(true)
	_, data, found := bytes.Cut(content, []byte("\n"))
	switch {
	case found && bytes.HasPrefix(content, []byte(fileMagic)):
		return Record{Data: data, Revision: revisionOf(content)}, nil
	case bytes.HasPrefix(content, []byte(fileMagicAny)):
		return Record{}, fmt.Errorf("%w: %s is a record of another version of this package; it was left intact. "+
			"Use the program that wrote it, or a newer one", ErrInvalidRecord, quotePath(f.Path()))
	default:
		return Record{Revision: revisionOf(content)}, fmt.Errorf("%w: %s is damaged; it was left intact. "+
			"Move the file away, or restore it", ErrInvalidRecord, quotePath(f.Path()))
	}
}

// missing says why a file does not exist.
func (s *fileStore) missing(path string) error {
	if _, err := os.Stat(s.folder); err != nil {
		if s.seen.Load() {
			return fmt.Errorf("agrenting: store: the folder %s is gone: %w. Restore or mount it", quotePath(s.folder), err)
		}
		return fmt.Errorf("%w: %s does not exist yet", ErrNoRecord, quotePath(path))
	}
	s.seen.Store(true)
	if older := strings.TrimSuffix(path, recordExtension) + olderExtension; exists(older) {
		return fmt.Errorf("%w: %s was written by an older build of this package, whose format is not supported any more. "+
			"Move the file away and fill the store with a live key", ErrInvalidRecord, quotePath(older))
	}
	return fmt.Errorf("%w: %s does not exist yet", ErrNoRecord, quotePath(path))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lockTimeout bounds the wait for another process's write, which takes
// milliseconds.
const lockTimeout = 10 * time.Second

func (s *fileStore) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	f, err := s.file(name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if previous != "" {
		// The folder is created for a first record alone.
		if _, err := s.read(f); err != nil && !errors.Is(err, ErrNoRecord) && !errors.Is(err, ErrInvalidRecord) {
			return "", err
		}
	}
	unlock, err := f.Lock(ctx)
	if err != nil {
		return "", writeError(err)
	}
	defer unlock()
	old, err := s.read(f)
	switch {
	case err != nil && old.Revision == "" && !errors.Is(err, ErrNoRecord):
		return "", err // it is left intact
	case old.Revision != previous:
		return "", fmt.Errorf("%w: another process has changed or removed %s", ErrConflictingWrite, quotePath(f.Path()))
	}
	content := contentOf(data)
	if err := f.Write(content); err != nil {
		return "", writeError(err)
	}
	return revisionOf(content), nil
}

// writeError adds ErrReadOnlyStore to the error of a write that the system does
// not permit.
func writeError(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: %w", ErrReadOnlyStore, err)
	}
	return fmt.Errorf("agrenting: store: %w", err)
}
