package filestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Config describes a [Store]. Folder and Invalid are required, such as Folder:
// "/var/lib/agent/keys". Most programs only set these two.
type Config struct {
	// Folder is the folder that contains the files.
	Folder string
	// Invalid returns the error for a folder or a name that cannot be used.
	Invalid func(format string, args ...any) error
	// Before is called before each step of a write, unless it is nil. An error
	// stops the write at that step. Tests simulate crashes with it.
	Before func(durable.Step) error
}

// Store keeps each record in a separate file.
type Store struct {
	cfg    Config
	seen   atomic.Bool // the folder has existed
	warned atomic.Bool // a warning about the folder was given
}

// New returns a store. It does not create the folder.
func New(cfg Config) (*Store, error) {
	if cfg.Folder == "" {
		return nil, cfg.Invalid("the folder has no name")
	}
	abs, err := filepath.Abs(cfg.Folder)
	if err != nil {
		return nil, fmt.Errorf("FileStore: %w", err)
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return nil, cfg.Invalid("%s is a file, and FileStore takes a folder. "+
			"If an older build of this package keeps a key in that file, its format is not supported any more: "+
			"choose a new folder and fill it with a live key", secret.QuotePath(abs))
	}
	cfg.Folder = abs
	return &Store{cfg: cfg}, nil
}

// String returns a name for the store that contains the folder.
func (s *Store) String() string {
	return "agrenting.FileStore(" + secret.Line(secret.RedactPatterns(s.cfg.Folder)) + ")"
}

// ShowsNoSecret implements [secret.Named].
func (*Store) ShowsNoSecret() {}

const (
	recordExtension = ".record"
	lockFolder      = ".locks"
	// olderExtension is that of the files of older builds.
	olderExtension = ".json"
	// maxRecordFile leaves room for a sealed record and the header.
	maxRecordFile = 2 * record.MaxSize
)

// file describes the file of a record. Windows reserves some names, with any
// extension. An underscore turns them into ordinary names.
func (s *Store) file(ctx context.Context, name string) (*durable.File, error) {
	if problem := record.NameProblem(name); problem != "" {
		return nil, s.cfg.Invalid("the record's name %s", problem)
	}
	label, _, _ := strings.Cut(name, ".")
	switch {
	case label == "con", label == "prn", label == "aux", label == "nul",
		len(label) == 4 && (label[:3] == "com" || label[:3] == "lpt"):
		name = "_" + name
	}
	f := durable.New(filepath.Join(s.cfg.Folder, name+recordExtension), maxRecordFile, s.cfg.Before)
	f = f.LockedBy(filepath.Join(s.cfg.Folder, lockFolder, name+".lock"))
	if warn := record.WarningOf(ctx); warn != nil {
		f = f.Warning(func(text string) {
			if !s.warned.Swap(true) {
				warn(text)
			}
		})
	}
	return f, nil
}

// fileMagic begins the first line of a file. A random word follows it, so that each
// write has a different revision.
const (
	fileMagic    = fileMagicAny + "2 "
	fileMagicAny = "agrenting-record "
)

// contentOf returns the content of the file for data.
func contentOf(data []byte) []byte {
	return append([]byte(fileMagic+rand.Text()+"\n"), data...)
}

// revisionOf returns the hash of the content, so that an edit by another program
// also counts as a change.
func revisionOf(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:16])
}

// Load implements [record.Store].
func (s *Store) Load(ctx context.Context, name string) (record.Raw, error) {
	f, err := s.file(ctx, name)
	if err != nil {
		return record.Raw{}, err
	}
	if ctx.Err() != nil {
		return record.Raw{}, context.Cause(ctx)
	}
	return s.read(f)
}

// read also returns the revision of a damaged file, so that the file can be
// replaced.
func (s *Store) read(f *durable.File) (record.Raw, error) {
	content, err := f.Read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return record.Raw{}, s.missing(f.Path())
	case err != nil:
		return record.Raw{}, secret.WithoutSecrets(fmt.Errorf("agrenting: store: %w", err))
	}
	s.seen.Store(true)
	_, data, found := bytes.Cut(content, []byte("\n"))
	switch {
	case found && bytes.HasPrefix(content, []byte(fileMagic)):
		return record.Raw{Data: data, Revision: revisionOf(content)}, nil
	case found && bytes.HasPrefix(content, []byte(fileMagicAny)): // the first line is complete
		return record.Raw{}, fmt.Errorf("%w: %s is a record of another version of this package; it was left intact. "+
			"Use the program that wrote it, or a newer one", record.ErrOtherVersion, secret.QuotePath(f.Path()))
	default:
		return record.Raw{Revision: revisionOf(content)}, fmt.Errorf("%w: %s is damaged; it was left intact. "+
			"Move the file away, or restore it", record.ErrInvalid, secret.QuotePath(f.Path()))
	}
}

// missing returns an error that says why a file does not exist.
func (s *Store) missing(path string) error {
	if _, err := os.Stat(s.cfg.Folder); err != nil {
		if s.seen.Load() {
			return secret.WithoutSecrets(fmt.Errorf("agrenting: store: the folder %s is gone: %w. Restore or mount it",
				secret.QuotePath(s.cfg.Folder), err))
		}
		return fmt.Errorf("%w: %s does not exist yet", record.ErrNoRecord, secret.QuotePath(path))
	}
	s.seen.Store(true)
	if older := strings.TrimSuffix(path, recordExtension) + olderExtension; exists(older) {
		return fmt.Errorf("%w: %s was written by an older build of this package, whose format is not supported any more. "+
			"Move the file away and fill the store with a live key", record.ErrInvalid, secret.QuotePath(older))
	}
	return fmt.Errorf("%w: %s does not exist yet", record.ErrNoRecord, secret.QuotePath(path))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lockTimeout bounds the wait for a write of another process. A write takes
// milliseconds.
const lockTimeout = 10 * time.Second

// Save implements [record.Store].
func (s *Store) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	f, err := s.file(ctx, name)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if previous != "" {
		// The folder is created only for the first record.
		if _, err := s.read(f); err != nil && !errors.Is(err, record.ErrNoRecord) && !errors.Is(err, record.ErrInvalid) {
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
	case err != nil && old.Revision == "" && !errors.Is(err, record.ErrNoRecord):
		return "", err // the file is left intact
	case old.Revision != previous:
		return "", fmt.Errorf("%w: another process has changed or removed %s", record.ErrConflict, secret.QuotePath(f.Path()))
	}
	content := contentOf(data)
	if err := f.Write(content); err != nil {
		return "", writeError(err)
	}
	return revisionOf(content), nil
}

// Watch implements [record.Store]. It returns nil, because files cannot be watched.
func (*Store) Watch(context.Context, string) iter.Seq2[record.Raw, error] { return nil }

// writeError adds [record.ErrReadOnly] to the error of a write that the system does
// not permit. For a file system without locks, it adds what to do.
func writeError(err error) error { return secret.WithoutSecrets(explained(err)) }

func explained(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", record.ErrReadOnly, err)
	case errors.Is(err, durable.ErrNoLocks):
		return fmt.Errorf("agrenting: store: %w. Use a local folder, or a Store such as etcdstore", err)
	default:
		return fmt.Errorf("agrenting: store: %w", err)
	}
}
