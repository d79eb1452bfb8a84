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
	// maxKeyFile bounds what is read of a key file. It leaves room for blank
	// lines around the longest secret.
	maxKeyFile = 64 << 10

	// mtimeGranularity is the coarsest resolution of modification times that is
	// still met (FAT: two seconds). A file that was modified less than this
	// before it was read may have been modified again since with no trace in its
	// times, so it is read again.
	mtimeGranularity = 2 * time.Second
)

// Recheck is how often a key file in use is checked again. Kubernetes itself takes up
// to a minute to update a mounted secret.
const Recheck = 10 * time.Second

// A File is a file that holds one credential. It is safe for concurrent use.
type File struct {
	path string
	kind secret.Kind

	mu       sync.Mutex
	last     secret.Credential // the last good one
	rejected secret.Credential // not to be served from last any more
	seen     fs.FileInfo       // of the content that was last read, good or bad; nil if it must be read
	problem  error             // of the last check of the file
}

// New returns the file at path. It touches nothing. If kind is zero, it is guessed as
// [secret.Parse] does.
func New(path string, kind secret.Kind) *File { return &File{path: path, kind: kind} }

// Path returns the path of the file. It may be a key that was taken for a path by
// mistake: print it with [secret.QuotePath].
func (f *File) Path() string { return f.path }

// String returns the path, quoted.
func (f *File) String() string { return secret.QuotePath(f.path) }

// ShowsNoSecret implements [secret.Named].
func (*File) ShowsNoSecret() {}

// Credential returns what the file holds. It reads the file only if its metadata has
// changed. While the file is bad, it returns the last good credential, unless that was
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

// Refresh reads the file regardless of its metadata. It returns what the file holds
// now, even if that is still the rejected credential.
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

// lastGood returns the last good credential in spite of the problem, unless it was
// rejected.
func (f *File) lastGood() (secret.Credential, error) {
	if f.last.IsZero() || f.last.Equal(f.rejected) {
		return secret.Credential{}, f.problem
	}

	return f.last, nil
}

// stat follows symlinks and refuses whatever is not a regular file: opening a
// pipe would wait for a writer, and a device may never end.
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

	return fmt.Errorf("%w: key file %s is %s; give the path of the file that holds the key",
		errUnusable, secret.QuotePath(f.path), kind)
}

// read reads the content and keeps the outcome.
func (f *File) read() {
	f.seen, f.problem = nil, nil

	c, info, err := f.open()
	if err != nil {
		f.problem = err
	} else if !c.Equal(f.last) {
		f.last = c
	}

	// A bad file is remembered as well as a good one, so that it is not read on
	// every request until it is fixed.
	if info != nil && time.Since(info.ModTime()) > mtimeGranularity {
		f.seen = info
	}
}

// open reads and parses the content. The info is nil when there was no content
// to judge.
func (f *File) open() (secret.Credential, fs.FileInfo, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return secret.Credential{}, nil, f.unreadable(err)
	}
	defer func() { _ = file.Close() }() // nothing was written

	// Of the open file, and before reading: whatever changes from here on shows
	// as a difference at the next check.
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

	// Editors on Windows put a byte order mark in front.
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))

	switch {
	case len(content) > maxKeyFile || info.Size() > maxKeyFile:
		return secret.Credential{}, info, fmt.Errorf("%w: key file %s is larger than %d bytes; it must hold the credential alone",
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

// errUnusable says that there is a file, but no credential in it. It matches
// [secret.ErrInvalidCredential], too: a chain of sources must not continue with another identity.
var errUnusable error = unusable{}

type unusable struct{}

func (unusable) Error() string { return secret.ErrNoCredential.Error() }

func (unusable) Is(target error) bool {
	return target == secret.ErrNoCredential || target == secret.ErrInvalidCredential
}

// unreadable wraps what the operating system says, without the path, which it would
// repeat. Only a file that does not exist means that there is no credential: another
// one may have one in a moment.
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

// sameContent reports whether nothing in the metadata indicates a change. The identity
// of the file changes if a symlink was pointed elsewhere, as Kubernetes does when a
// mounted secret changes.
func sameContent(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}
