package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// timedBody yields each of its parts after a time.
type timedBody struct {
	parts  []timedPart
	closed chan struct{}
}

type timedPart struct {
	after time.Duration
	text  string
}

func newTimedBody(parts ...timedPart) *timedBody {
	return &timedBody{parts: parts, closed: make(chan struct{})}
}

var errBodyClosed = errors.New("closed")

func (b *timedBody) Read(p []byte) (int, error) {
	if len(b.parts) == 0 {
		return 0, io.EOF
	}
	part := b.parts[0]
	b.parts = b.parts[1:]
	select {
	case <-time.After(part.after):
		return copy(p, part.text), nil
	case <-b.closed:
		return 0, errBodyClosed
	}
}

func (b *timedBody) Close() error {
	close(b.closed)
	return nil
}

const never = 1000 * time.Hour

func TestPeekIsBoundedAndKeepsBody(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		parts []timedPart
		head  string
		whole bool
		took  time.Duration
	}{
		"empty":            {nil, "", true, 0},
		"at once":          {[]timedPart{{0, "a"}, {0, "b"}}, "ab", true, 0},
		"slow":             {[]timedPart{{90 * time.Millisecond, "a"}, {90 * time.Millisecond, "b"}}, "ab", true, 180 * time.Millisecond},
		"too slow":         {[]timedPart{{0, "a"}, {time.Second, "b"}, {time.Second, "c"}}, "a", false, 200 * time.Millisecond},
		"drop by drop":     {[]timedPart{{150 * time.Millisecond, "a"}, {150 * time.Millisecond, "b"}, {0, "c"}}, "a", false, 200 * time.Millisecond},
		"nothing at first": {[]timedPart{{time.Minute, "a"}}, "", false, 200 * time.Millisecond},
		"too long":         {[]timedPart{{0, "abc"}, {0, "def"}, {0, "g"}}, "abcdef", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				resp := &http.Response{Body: newTimedBody(tc.parts...)}
				began := time.Now()
				for range 2 { // the second costs nothing
					head, err := Peek(resp, 5)
					assert.Equal(t, tc.head, string(head))
					assert.Equal(t, tc.whole, err == nil, "%v", err)
					assert.Equal(t, tc.took, time.Since(began))
				}
				var all strings.Builder
				for _, p := range tc.parts {
					all.WriteString(p.text)
				}
				got, err := io.ReadAll(iotest.OneByteReader(resp.Body))
				require.NoError(t, err)
				assert.Equal(t, all.String(), string(got))
			})
		})
	}
}

func TestPeekedBodyYieldsItsBeginningWithoutWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		resp := &http.Response{Body: newTimedBody(timedPart{0, "abc"}, timedPart{time.Hour, "d"})}
		_, err := Peek(resp, 100)
		require.ErrorIs(t, err, errUnread)
		began := time.Now()
		p := make([]byte, 10)
		n, err := resp.Body.Read(p)
		require.NoError(t, err)
		assert.Equal(t, "abc", string(p[:n]))
		n, err = resp.Body.Read(nil)
		require.NoError(t, err)
		assert.Zero(t, n)
		assert.Zero(t, time.Since(began))
		n, err = resp.Body.Read(p)
		require.NoError(t, err)
		assert.Equal(t, "d", string(p[:n]))
	})
}

func TestCloseEndsReadOfPeekedBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // and the bubble ends: no goroutine is left
		resp := &http.Response{Body: newTimedBody(timedPart{0, "a"}, timedPart{never, "b"})}
		_, err := Peek(resp, 100)
		require.ErrorIs(t, err, errUnread)
		time.AfterFunc(time.Second, func() { _ = resp.Body.Close() })
		got, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, errBodyClosed)
		assert.Equal(t, "a", string(got))
	})
}

func TestPeekReturnsErrorOfBody(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken off")
	resp := &http.Response{Body: io.NopCloser(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)))}
	head, err := Peek(resp, 100)
	require.ErrorIs(t, err, broken)
	assert.Equal(t, "abc", string(head))
	got, err := io.ReadAll(resp.Body)
	require.ErrorIs(t, err, broken)
	assert.Equal(t, "abc", string(got))
}

func TestPeekDoesNotWrapEmptyBody(t *testing.T) {
	t.Parallel()
	resp := &http.Response{Body: http.NoBody}
	head, err := Peek(resp, 100)
	require.NoError(t, err)
	assert.Empty(t, head)
	assert.Equal(t, http.NoBody, resp.Body)
}

func TestCallDoesNotReadWholeErrorBody(t *testing.T) {
	t.Parallel()
	const refusal = `{"errors":[{"code":"UNAUTHORIZED"}]}`
	for name, tc := range map[string]struct {
		text string
		code string
		json bool
	}{
		"no body":   {"", "", false},
		"half":      {refusal[:10], "", false},
		"whole":     {refusal, "UNAUTHORIZED", true},
		"page":      {"<html>", "", false},
		"too large": {strings.Repeat("x", 1<<10), "", false},
	} {
		for _, status := range []int{302, 401, 429, 503} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					body := newTimedBody(timedPart{0, tc.text}, timedPart{never, ""})
					send := func(*http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: status, Header: http.Header{}, Body: body}, nil
					}
					began := time.Now()
					a, err := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}.Do(t.Context(), send, 512)
					require.NoError(t, err)
					assert.LessOrEqual(t, time.Since(began), peekTime)
					assert.Equal(t, status, a.Status)
					assert.Equal(t, tc.json, a.JSONErr == nil, "%v", a.JSONErr)
					if tc.json {
						assert.Equal(t, tc.code, a.Envelope.Errors[0].Code)
					}
				})
			})
		}
	}
}

func TestCallWaitsForASuccess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body := newTimedBody(timedPart{0, `{"data":`}, timedPart{time.Minute, "1}"})
		send := func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body}, nil
		}
		a, err := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}.Do(t.Context(), send, 512)
		require.NoError(t, err)
		assert.Equal(t, "1", string(a.Envelope.Data))
	})
}

// stuckBody cannot be closed while it is being read, and ends with its request.
type stuckBody struct{ ctx context.Context }

func (b stuckBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b stuckBody) Close() error {
	<-b.ctx.Done()
	return nil
}

func TestCloseDoesNotWaitForStuckBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resp := &http.Response{Body: stuckBody{ctx}}
		began := time.Now()
		_, err := Peek(resp, 100)
		require.ErrorIs(t, err, errUnread)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, peekTime+closeTime, time.Since(began))
	})
}

func TestCallEndsRequestOfStuckBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // and the bubble ends: no goroutine is left
		send := func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: stuckBody{req.Context()}}, nil
		}
		began := time.Now()
		a, err := Call{Method: http.MethodGet, URL: target, Header: http.Header{}}.Do(context.WithoutCancel(t.Context()), send, 100)
		require.NoError(t, err)
		assert.Equal(t, http.StatusServiceUnavailable, a.Status)
		assert.Equal(t, peekTime, time.Since(began))
	})
}
