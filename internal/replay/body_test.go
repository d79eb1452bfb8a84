package replay

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// spyBody is a body that cannot be made again. It counts.
type spyBody struct {
	io.Reader
	read, closes atomic.Int64
}

func newSpyBody(content string) *spyBody { return &spyBody{Reader: strings.NewReader(content)} }

func (b *spyBody) Read(p []byte) (int, error) {
	if b.closes.Load() > 0 {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.Reader.Read(p)
	b.read.Add(int64(n))
	return n, err
}

func (b *spyBody) Close() error {
	b.closes.Add(1)
	return nil
}

func (b *spyBody) closed() int { return int(b.closes.Load()) }

// post returns a request with a body that cannot be made again.
func post(tb testing.TB, body io.Reader) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, "https://api.agrenting.test/x", body)
	require.NoError(tb, err)
	return req
}

func TestEmptyReadDoesNotPreventReplay(t *testing.T) {
	t.Parallel()

	body := newSpyBody("content")
	req := post(t, body)
	r := Of(req, true)
	first := r.First(req)
	n, err := first.Read(nil)
	require.NoError(t, err)
	assert.Zero(t, n)
	again, err := r.Again(req)
	require.NoError(t, err, "a read of no bytes spoils nothing")
	require.NoError(t, first.Close())
	assert.Zero(t, body.closed(), "the first attempt has nothing to close any more")
	b, err := io.ReadAll(again)
	require.NoError(t, err)
	assert.Equal(t, "content", string(b))
	require.NoError(t, again.Close())
	require.NoError(t, again.Close())
	assert.Equal(t, 1, body.closed())
}

func TestBodyIsNotWrappedWithoutNeed(t *testing.T) {
	t.Parallel()

	body := newSpyBody("content")
	req := post(t, body)
	assert.Same(t, body, Of(req, false).First(req), "a static credential")
	req.GetBody = func() (io.ReadCloser, error) { return newSpyBody(""), nil }
	assert.Same(t, body, Of(req, true).First(req), "GetBody")
	req.Body = http.NoBody
	assert.Equal(t, http.NoBody, Of(req, true).First(req))
}

func TestEarlierAttemptDoesNotCloseReclaimedBody(t *testing.T) {
	t.Parallel()

	body := newSpyBody("content")
	req := post(t, body)
	r := Of(req, true)
	first := r.First(req)
	require.NoError(t, first.Close())
	assert.Zero(t, body.closed(), "a replay may follow")
	second, err := r.Again(req)
	require.NoError(t, err)
	r.Release()
	assert.Zero(t, body.closed(), "the replay has not begun to read it")
	n, err := second.Read(make([]byte, 1))
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	require.NoError(t, first.Close())
	assert.Zero(t, body.closed(), "the first attempt has nothing to close any more")
	require.NoError(t, second.Close())
	assert.Equal(t, 1, body.closed())
	r.Release()
	assert.Equal(t, 1, body.closed())
}

func TestOneByteReadPreventsReplay(t *testing.T) {
	t.Parallel()

	req := post(t, newSpyBody("content"))
	r := Of(req, true)
	_, err := r.First(req).Read(make([]byte, 1))
	require.NoError(t, err)
	_, err = r.Again(req)
	require.ErrorIs(t, err, ErrNot)
}
