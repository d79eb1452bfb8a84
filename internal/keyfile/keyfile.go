package keyfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

const (
	// maxKeyFile bounds how much of a key file is read. It leaves room for blank lines around the
	// longest secret.
	maxKeyFile = 64 << 10

	// mtimeGranularity is the coarsest resolution of modification times in use today (FAT: two
	// seconds). If a file was modified less than this before it was read, a later modification
	// may not change its times. Such a file is read again.
	mtimeGranularity = 2 * time.Second
)

// Recheck is how often a key file in use is checked again. Kubernetes takes up to a minute to
// update a mounted secret.
const Recheck = 10 * time.Second

// A File is a file that holds one credential. It is safe for concurrent use.
type File struct {
	path string
	kind secret.Kind

	mu       sync.Mutex
	last     secret.Credential // the last valid one
	rejected secret.Credential // last must not be returned if it is this one
	seen     fs.FileInfo       // of the content that was last read, good or bad; nil if it must be read
	problem  error             // of the last check of the file
}

// New returns the file at path. It does not access the file system. If kind is zero, it is
// guessed as [secret.Parse] does.
func New(path string, kind secret.Kind) *File { return &File{path: path, kind: kind} }

// Path returns the path of the file. It may be a key that was mistaken for a path: print it with
// [secret.QuotePath].
func (f *File) Path() string { return f.path }

// String returns the path, quoted.
func (f *File) String() string { return secret.QuotePath(f.path) }

// ShowsNoSecret implements [secret.Named].
func (*File) ShowsNoSecret() {}

// Credential returns the credential in the file. It reads the file only if its metadata has
// changed. While the file is bad, Credential returns the last valid credential, unless that was
// rejected.
func (f *File) Credential(ctx context.Context) (secret.Credential, error) {
	if err := ctx.Err(); err != nil {
		return secret.Credential{}, err
	}

	f.mu.Lock()
	defer f.mu.Unlock()

	info, err := f.stat()
	if err != nil {
		f.seen, f.problem = nil, err

		return f.lastGood()
	}

	if f.seen == nil || !sameContent(f.seen, info) {
		f.read()
	}

	if f.problem != nil {
		return f.lastGood()
	}

	return f.last, nil
}

// Refresh reads the file regardless of its metadata. It returns the credential in the file now,
// even if it is still the rejected one.
func (f *File) Refresh(ctx context.Context, rejected secret.Credential) (secret.Credential, error) {
	if err := ctx.Err(); err != nil {
		return secret.Credential{}, err
	}

	f.mu.Lock()
	defer f.mu.Unlock()

	f.rejected = rejected

	if _, err := f.stat(); err != nil {
		f.seen, f.problem = nil, err

		return f.lastGood()
	}

	f.read()

	if f.problem != nil {
		return f.lastGood()
	}

	return f.last, nil
}

// Check checks the file without reading it.
func (f *File) Check() error {
	_, err := f.stat()

	return err
}

// lastGood returns the last valid credential although there is a problem, unless the credential
// was rejected.
func (f *File) lastGood() (secret.Credential, error) {
	if f.last.IsZero() || f.last.Equal(f.rejected) {
		return secret.Credential{}, f.problem
	}

	return f.last, nil
}

// stat follows symlinks and returns an error if the file is not regular: opening a pipe would
// wait for a writer, and reading a device may never end.
func (f *File) stat() (fs.FileInfo, error) {
	if f.path == "" {
		return nil, fmt.Errorf("%w: the path of the key file is empty", secret.ErrNoCredential)
	}

	info, err := os.Stat(f.path)
	if err != nil {
		return nil, f.unreadable(err)
	}

	if err := f.checkRegular(info); err != nil {
		return nil, err
	}

	return info, nil
}

func (f *File) checkRegular(info fs.FileInfo) error {
	mode := info.Mode()
	if mode.IsRegular() {
		return nil
	}

	kind := "not a regular file"

	switch {
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		kind = "a device"
	}

	return fmt.Errorf("%w: key file %s is %s; pass the path of the file that contains the key",
		errUnusable, secret.QuotePath(f.path), kind)
}

// read reads the content and stores the outcome.
func (f *File) read() {
	f.seen, f.problem = nil, nil

	c, info, err := f.open()
	if err != nil {
		f.problem = err
	} else if !c.Equal(f.last) {
		f.last = c
	}

	// The state of a bad file is stored, too, so that the file is not read for every request
	// until it is fixed.
	if info != nil && time.Since(info.ModTime()) > mtimeGranularity {
		f.seen = info
	}
}

// open reads and parses the content. The info is nil if no content was read.
func (f *File) open() (secret.Credential, fs.FileInfo, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return secret.Credential{}, nil, f.unreadable(err)
	}
	defer func() { _ = file.Close() }() // the file is only read

	// Stat is called on the open file, before reading: any later change shows as a difference at
	// the next check.
	info, err := file.Stat()
	if err != nil {
		return secret.Credential{}, nil, f.unreadable(err)
	}

	if err := f.checkRegular(info); err != nil {
		return secret.Credential{}, nil, err
	}

	content, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return secret.Credential{}, nil, f.unreadable(err)
	}

	// Editors on Windows put a byte order mark at the beginning.
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))

	switch {
	case len(content) > maxKeyFile || info.Size() > maxKeyFile:
		return secret.Credential{}, info, fmt.Errorf("%w: key file %s is larger than %d bytes; it must contain only the credential",
			secret.ErrInvalidCredential, secret.QuotePath(f.path), maxKeyFile)
	case len(content) == 0:
		return secret.Credential{}, info, fmt.Errorf("%w: key file %s is empty", errUnusable, secret.QuotePath(f.path))
	}

	c, err := secret.Parse("the content of key file "+secret.QuotePath(f.path), string(content), f.kind)
	if err != nil {
		return secret.Credential{}, info, err
	}

	return c, info, nil
}

// errUnusable means that there is a file, but no credential in it. It also matches
// [secret.ErrInvalidCredential], because a chain of sources must not continue with another
// identity.
var errUnusable error = unusable{}

type unusable struct{}

func (unusable) Error() string { return secret.ErrNoCredential.Error() }

func (unusable) Is(target error) bool {
	return target == secret.ErrNoCredential || target == secret.ErrInvalidCredential
}

// unreadable wraps the error of the operating system, without the path, which would be repeated.
// Only a file that does not exist counts as a missing credential. A file that cannot be read may
// become readable in a moment.
func (f *File) unreadable(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		err = pathErr.Err
	}

	kind := secret.ErrNoCredential
	if !errors.Is(err, fs.ErrNotExist) {
		kind = errUnusable
	}

	return fmt.Errorf("%w: key file %s: %w", kind, secret.QuotePath(f.path), err)
}

// sameContent reports whether the metadata is unchanged. The identity of the file changes if a
// symlink gets another target, as Kubernetes does when a mounted secret changes.
func sameContent(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}
