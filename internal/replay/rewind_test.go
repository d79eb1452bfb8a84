package replay

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// seekable is a body that can be rewound, and counts how often it is closed.
type seekable struct {
	*strings.Reader
	closes  int
	lost    error         // of a seek to another place
	reading chan struct{} // a read waits until it is closed; nil if it does not
}

func (s *seekable) Read(p []byte) (int, error) {
	if s.reading != nil {
		<-s.reading
	}
	return s.Reader.Read(p)
}

func (s *seekable) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekCurrent && s.lost != nil {
		return 0, s.lost
	}
	return s.Reader.Seek(offset, whence)
}

func (s *seekable) Close() error {
	s.closes++
	return nil
}

// readsOf sends the body of req several times, and reads a part of it or, for a negative
// number, all of it.
func readsOf(t *testing.T, req *http.Request, reads ...int) (got []string) {
	t.Helper()
	body := req.Body
	for i, n := range reads {
		if i > 0 {
			var err error
			body, err = req.GetBody()
			require.NoError(t, err)
		}
		var from io.Reader = body
		if n >= 0 {
			from = io.LimitReader(body, int64(n))
		}
		b, err := io.ReadAll(from)
		require.NoError(t, err)
		got = append(got, string(b))
		require.NoError(t, body.Close())
	}
	return got
}

func TestRewindStartsEachAttemptWhereTheReaderWas(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) io.ReadSeeker {
		t.Helper()
		name := filepath.Join(t.TempDir(), "body")
		require.NoError(t, os.WriteFile(name, []byte("0123456789"), 0o600))
		file, err := os.Open(name)
		require.NoError(t, err)
		return file
	}
	for name, tc := range map[string]struct {
		in    func(*testing.T) io.ReadSeeker
		start int64
		want  []string
	}{
		"file":                {open, 0, []string{"0123", "0123456789", "", "0123456789"}},
		"middle of a file":    {open, 4, []string{"4567", "456789", "", "456789"}},
		"end of a file":       {open, 10, []string{"", "", "", ""}},
		"section of a reader": {func(*testing.T) io.ReadSeeker { return io.NewSectionReader(strings.NewReader("--0123456789--"), 2, 10) }, 1, []string{"1234", "123456789", "", "123456789"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := tc.in(t)
			_, err := in.Seek(tc.start, io.SeekStart)
			require.NoError(t, err)
			req := post(t, in)
			release := Rewind(req, in)
			assert.Equal(t, tc.want, readsOf(t, req, 4, -1, 0, -1))
			release()
			if file, ok := in.(*os.File); ok {
				_, err = file.Stat()
				require.ErrorIs(t, err, os.ErrClosed)
			}
		})
	}
}

func TestRewindLeavesOtherBodiesAlone(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	t.Cleanup(func() { _ = null.Close() })
	for name, in := range map[string]io.Reader{
		"reader":       io.MultiReader(strings.NewReader("body")),
		"pipe":         r,
		"device":       null,
		"broken seek":  struct{ io.ReadSeeker }{&brokenSeeker{}},
		"broken file":  brokenFile{strings.NewReader("body")},
		"bytes to EOF": strings.NewReader("body"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := post(t, in)
			body, remade := req.Body, req.GetBody != nil
			Rewind(req, in)()
			assert.Equal(t, body, req.Body)
			assert.Equal(t, remade, req.GetBody != nil)
		})
	}
}

type brokenSeeker struct{ io.Reader }

func (*brokenSeeker) Seek(int64, int) (int64, error) { return 0, errors.New("not seekable") }

type brokenFile struct{ *strings.Reader }

func (brokenFile) Stat() (fs.FileInfo, error) { return nil, errors.New("no information") }

func TestRewoundBodyIsClosedAfterTheLastAttempt(t *testing.T) {
	t.Parallel()
	in := &seekable{Reader: strings.NewReader("body")}
	req := post(t, in)
	release := Rewind(req, in)
	readsOf(t, req, -1, -1)
	assert.Zero(t, in.closes)
	release()
	assert.Equal(t, 1, in.closes)
	_, err := req.GetBody()
	require.ErrorIs(t, err, errEnded)
	_, err = req.Body.Read(make([]byte, 1))
	require.ErrorIs(t, err, errEnded, "net/http may still hold it")
}

func TestEarlierAttemptDoesNotReadRewoundBody(t *testing.T) {
	t.Parallel()
	in := &seekable{Reader: strings.NewReader("body")}
	req := post(t, in)
	release := Rewind(req, in)
	defer release()
	again, err := req.GetBody()
	require.NoError(t, err)
	_, err = req.Body.Read(make([]byte, 2))
	require.ErrorIs(t, err, errReclaimed)
	b, err := io.ReadAll(again)
	require.NoError(t, err)
	assert.Equal(t, "body", string(b))
	require.NoError(t, again.Close())
	_, err = again.Read(make([]byte, 1))
	require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
}

func TestRewindWaitsForTheReadInProgress(t *testing.T) {
	t.Parallel()
	for name, canceled := range map[string]bool{"until it ends": false, "until the request is canceled": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				in := &seekable{Reader: strings.NewReader("body"), reading: make(chan struct{})}
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				req := post(t, in).WithContext(ctx)
				release := Rewind(req, in)
				go func() { _, _ = req.Body.Read(make([]byte, 2)) }()
				synctest.Wait()

				var again io.ReadCloser
				var err error
				done := make(chan struct{})
				go func() {
					defer close(done)
					again, err = req.GetBody()
				}()
				synctest.Wait()
				select {
				case <-done:
					t.Fatal("the body was rewound under a read")
				default:
				}
				reason := errors.New("no longer wanted")
				if canceled {
					cancel(reason)
					<-done
					require.ErrorIs(t, err, reason)
					release()
					assert.Equal(t, 1, in.closes, "closed while it is read, as net/http does")
					close(in.reading)
					return
				}
				close(in.reading)
				<-done
				require.NoError(t, err)
				b, err := io.ReadAll(again)
				require.NoError(t, err)
				assert.Equal(t, "body", string(b))
				release()
			})
		})
	}
}

func TestLostBodyIsAnError(t *testing.T) {
	t.Parallel()
	in := &seekable{Reader: strings.NewReader("body"), lost: errors.New("the volume is gone")}
	req := post(t, in)
	release := Rewind(req, in)
	defer release()
	_, err := Of(req, true).Again(req)
	require.ErrorIs(t, err, ErrNot)
	require.ErrorIs(t, err, in.lost)
}
