package proxy

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const keptBytes = 10

// received returns the upload of a body.
func received(t *testing.T, body io.Reader, length int64, m *memory) *upload {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
	require.NoError(t, err)
	req.ContentLength = length
	u, err := receive(t.Context(), req, keptBytes, m)
	require.NoError(t, err)
	require.NotNil(t, u)
	return u
}

func attemptOf(t *testing.T, u *upload) io.ReadCloser {
	t.Helper()
	b, err := u.body()
	require.NoError(t, err)
	return b
}

func TestUpload_rest_isReadOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m memory
		m.give(100)
		content := []byte("0123456789abcdefghij")
		u := received(t, bytes.NewBuffer(content), -1, &m)
		assert.EqualValues(t, 100-keptBytes-1, m.left.Load())
		assert.EqualValues(t, -1, u.whole())

		first := attemptOf(t, u)
		_, err := io.ReadFull(first, make([]byte, keptBytes+1))
		require.NoError(t, err)
		second := attemptOf(t, u)
		_, err = first.Read(make([]byte, 1))
		require.ErrorIs(t, err, errSuperseded, "it must not take the rest from the second")
		got, err := io.ReadAll(second)
		require.NoError(t, err)
		assert.Equal(t, content, got)
		assert.EqualValues(t, 100, m.left.Load(), "the beginning is not needed any more")
		_, err = u.body()
		require.ErrorIs(t, err, errRestSent)
		u.close()
		assert.EqualValues(t, 100, m.left.Load())
		_, err = second.Read(make([]byte, 1))
		require.ErrorIs(t, err, errClosed)
	})
}

func TestUpload_whole_isReadOften(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, length := range []int64{-1, 10} {
			var m memory
			m.give(100)
			u := received(t, io.LimitReader(bytes.NewBufferString("0123456789"), 10), length, &m)
			assert.EqualValues(t, 10, u.whole())
			assert.EqualValues(t, 90, m.left.Load())
			for range 3 {
				got, err := io.ReadAll(attemptOf(t, u))
				require.NoError(t, err)
				assert.Equal(t, "0123456789", string(got))
			}
			u.close()
			assert.EqualValues(t, 100, m.left.Load())
		}
	})
}

// A body that does not end is sent while it arrives, and can still be sent again.
func TestUpload_thatPauses_isSentWhileItArrives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m memory
		m.give(100)
		body, caller := io.Pipe()
		go func() { _, _ = io.WriteString(caller, "first") }()
		began := time.Now()
		u := received(t, body, -1, &m)
		assert.Equal(t, patience, time.Since(began))
		first := attemptOf(t, u)
		got := make([]byte, 5)
		_, err := io.ReadFull(first, got)
		require.NoError(t, err)
		assert.Equal(t, "first", string(got))
		second := attemptOf(t, u)
		go func() {
			_, _ = io.WriteString(caller, "second and more")
			_ = caller.Close()
		}()
		all, err := io.ReadAll(second)
		require.NoError(t, err)
		assert.Equal(t, "firstsecond and more", string(all))
		u.close()
		assert.EqualValues(t, 100, m.left.Load())
	})
}

// The end of the request ends reads that wait for its caller.
func TestUpload_close_endsReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m memory
		m.give(100)
		body, caller := io.Pipe()
		u := received(t, body, -1, &m)
		failed := make(chan error)
		b := attemptOf(t, u)
		go func() {
			_, err := b.Read(make([]byte, 1))
			failed <- err
		}()
		synctest.Wait()
		u.close()
		require.ErrorIs(t, <-failed, errClosed)
		_ = caller.Close()
		synctest.Wait()
		assert.EqualValues(t, 100, m.left.Load())
	})
}

func TestCleanTexts_belongToOneGeneration(t *testing.T) {
	t.Parallel()
	var texts cleanTexts
	h := http.Header{"X-Debug": {"value"}}
	assert.False(t, texts.has(1, h))
	texts.add(1, texts.unknown(1, h))
	assert.True(t, texts.has(1, h))
	assert.False(t, texts.has(2, h), "the value may be the next credential")
	assert.ElementsMatch(t, []string{"X-Debug", "value"}, texts.unknown(2, h))
	assert.False(t, texts.has(1, http.Header{"X-Debug": {"value", "other"}}))
	assert.Equal(t, []string{"other"}, texts.unknown(1, http.Header{"X-Debug": {"value", "other"}}))
	assert.False(t, texts.has(0, http.Header{}))
	texts.add(2, nil)
	assert.False(t, texts.has(1, h))
	texts.add(1, texts.unknown(1, h))
	assert.False(t, texts.has(1, h), "an older generation is not remembered")
}

func TestCleanTexts_areBounded(t *testing.T) {
	t.Parallel()
	var texts cleanTexts
	for i := range 3 * maxTexts {
		texts.add(1, []string{string(rune('A' + i)), string(bytes.Repeat([]byte("x"), maxText+1))})
		require.LessOrEqual(t, len(texts.texts), maxTexts)
	}
	assert.NotContains(t, texts.texts, string(bytes.Repeat([]byte("x"), maxText+1)))
}
