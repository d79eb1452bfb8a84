package agrenting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
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
	// times, so it is read anew.
	mtimeGranularity = 2 * time.Second
)

// FileSource returns a source that reads the credential from a file, such as a
// secret mounted by Kubernetes, Docker or Vault, and follows its changes. The
// file holds the credential alone; white space around it is dropped, and the
// kind is told as [ParseCredential] does. Symlinks are followed. The path may be
// relative to the working directory.
//
// Each call of Credential looks at the file's metadata and reads the file again
// when that has changed; there is no goroutine and nothing to close. While the
// file cannot be read, because it is being replaced or written, the last good
// credential serves on, unless the platform has rejected it. The source is a
// [Refresher]: on a rejection it reads the file again no matter what its metadata
// say.
//
// Errors name the path and what is wrong, never the content. A file that is
// missing, empty, unreadable or not a regular file is an [ErrNoCredential], with
// the cause in reach of [errors.Is], such as [fs.ErrNotExist]; content that is
// not a credential is an [ErrInvalidCredential]. A source is safe for concurrent
// use.
func FileSource(path string) CredentialSource { return newFileSource(path, 0) }

// newFileSource is FileSource with the kind given, unless that is zero.
func newFileSource(path string, kind Kind) *fileSource {
	return &fileSource{path: path, kind: kind}
}

var _ Refresher = (*fileSource)(nil)

type fileSource struct {
	path string
	kind Kind

	mu       sync.Mutex
	last     Credential  // the last good one
	rejected Credential  // not to be served from last any more
	seen     fs.FileInfo // of the content that was last read, good or bad; nil when it must be read
	problem  error       // of the last look at the file
}

// Credential implements [CredentialSource].
func (s *fileSource) Credential(ctx context.Context) (Credential, error) {
	if err := ctx.Err(); err != nil {
		return Credential{}, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	info, err := s.stat()
	if err != nil {
		s.seen, s.problem = nil, err

		return s.lastGood()
	}

	if s.seen == nil || !sameContent(s.seen, info) {
		s.read()
	}

	if s.problem != nil {
		return s.lastGood()
	}

	return s.last, nil
}

// Refresh implements [Refresher]. It returns what the file holds now, even if
// that is still the rejected credential.
func (s *fileSource) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	if err := ctx.Err(); err != nil {
		return Credential{}, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.rejected = rejected

	if _, err := s.stat(); err != nil {
		s.seen, s.problem = nil, err

		return s.lastGood()
	}

	s.read()

	if s.problem != nil {
		return s.lastGood()
	}

	return s.last, nil
}

// String names the file.
// recheck is how often the file is looked at again while it is in use.
func (*fileSource) recheck() time.Duration { return fileRecheck }

func (s *fileSource) String() string { return "agrenting.FileSource(" + quotePath(s.path) + ")" }

// lastProblem returns what was wrong with the file when it was last looked at,
// although a credential may have been served; nil when all was well.
func (s *fileSource) lastProblem() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.problem
}

// state looks at the file without reading it and says how it is, for a list of
// the sources that were tried.
func (s *fileSource) state() string {
	switch _, err := s.stat(); {
	case err == nil:
		return stateUsed
	case errors.Is(err, fs.ErrNotExist):
		return "file does not exist"
	default:
		return "file cannot be used"
	}
}

// lastGood serves the last good credential in spite of the problem.
func (s *fileSource) lastGood() (Credential, error) {
	if s.last.IsZero() || s.last.Equal(s.rejected) {
		return Credential{}, s.problem
	}

	return s.last, nil
}

// stat follows symlinks and refuses whatever is not a regular file: opening a
// pipe would wait for a writer, and a device may never end.
func (s *fileSource) stat() (fs.FileInfo, error) {
	if s.path == "" {
		return nil, fmt.Errorf("%w: the path of the key file is empty", ErrNoCredential)
	}

	info, err := os.Stat(s.path)
	if err != nil {
		return nil, s.missing(err)
	}

	if err := s.checkRegular(info); err != nil {
		return nil, err
	}

	return info, nil
}

func (s *fileSource) checkRegular(info fs.FileInfo) error {
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
		ErrNoCredential, quotePath(s.path), kind)
}

// read reads the content and keeps the outcome.
func (s *fileSource) read() {
	s.seen, s.problem = nil, nil

	c, info, err := s.open()
	if err != nil {
		s.problem = err
	} else if !c.Equal(s.last) {
		s.last = c
	}

	// A bad file is remembered as well as a good one, so that it is not read on
	// every request until somebody mends it.
	if info != nil && time.Since(info.ModTime()) > mtimeGranularity {
		s.seen = info
	}
}

// open reads and parses the content. The info is nil when there was no content
// to judge.
func (s *fileSource) open() (Credential, fs.FileInfo, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return Credential{}, nil, s.missing(err)
	}
	defer func() { _ = f.Close() }() // nothing was written

	// Of the open file, and before reading: whatever changes from here on shows
	// as a difference at the next look.
	info, err := f.Stat()
	if err != nil {
		return Credential{}, nil, s.missing(err)
	}

	if err := s.checkRegular(info); err != nil {
		return Credential{}, nil, err
	}

	content, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return Credential{}, nil, s.missing(err)
	}

	// Editors on Windows put a byte order mark in front.
	content = bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\xef\xbb\xbf")))

	switch {
	case len(content) > maxKeyFile || info.Size() > maxKeyFile:
		return Credential{}, info, fmt.Errorf("%w: key file %s is larger than %d bytes; it must hold the credential alone",
			ErrInvalidCredential, quotePath(s.path), maxKeyFile)
	case len(content) == 0:
		return Credential{}, info, fmt.Errorf("%w: key file %s is empty", ErrNoCredential, quotePath(s.path))
	}

	c, err := parseCredentialAs("the content of key file "+quotePath(s.path), string(content), s.kind)
	if err != nil {
		return Credential{}, info, err
	}

	return c, info, nil
}

// missing wraps what the operating system says, without the path, which it would
// repeat.
func (s *fileSource) missing(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		err = pathErr.Err
	}

	return fmt.Errorf("%w: key file %s: %w", ErrNoCredential, quotePath(s.path), err)
}

// sameContent reports whether nothing in the metadata tells of a change. The
// identity of the file tells when a symlink was pointed elsewhere, as Kubernetes
// does when a mounted secret changes.
func sameContent(a, b fs.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && os.SameFile(a, b)
}

// quotePath quotes a path for an error. A key that was taken for a path by
// mistake is not shown.
func quotePath(path string) string {
	if redacted := secret.RedactPatterns(path); redacted != path {
		return redacted
	}

	if len(path) >= minKeyLen && !strings.ContainsAny(path, `/\.`) {
		return secret.Placeholder
	}

	return fmt.Sprintf("%q", path)
}

// minKeyLen is the length from which a path without any separator or dot is
// taken for a key: production keys have no prefix to tell them by.
const minKeyLen = 20
