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

// Config describes a [Store].
type Config struct {
	// Folder is where the files are.
	Folder string
	// Invalid makes the error for a folder or a name that cannot be used.
	Invalid func(format string, args ...any) error
	// Before is called before each step of a write; nil means not at all. An
	// error stops the write there. Tests crash there.
	Before func(durable.Step) error
}

// Store keeps each record in a file of its own.
type Store struct {
	cfg    Config
	seen   atomic.Bool // the folder was there once
	warned atomic.Bool // the user was told about the folder
}

// New returns a store. It creates nothing.
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

// String names the folder.
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
// extension; an underscore makes them ordinary.
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

// read returns the revision also of a damaged file, so that a record that is worth
// nothing can be replaced.
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

// missing says why a file does not exist.
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

// lockTimeout bounds the wait for another process's write, which takes
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
		// The folder is created for a first record alone.
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
		return "", err // it is left intact
	case old.Revision != previous:
		return "", fmt.Errorf("%w: another process has changed or removed %s", record.ErrConflict, secret.QuotePath(f.Path()))
	}
	content := contentOf(data)
	if err := f.Write(content); err != nil {
		return "", writeError(err)
	}
	return revisionOf(content), nil
}

// Watch implements [record.Store]: files cannot be watched.
func (*Store) Watch(context.Context, string) iter.Seq2[record.Raw, error] { return nil }

// writeError adds [record.ErrReadOnly] to the error of a write that the system does
// not permit, and what to do about a file system without locks.
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
