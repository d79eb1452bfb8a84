package wire

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// closeCounter counts how often a body is closed.
type closeCounter struct {
	io.Reader
	closes int
}

func (c *closeCounter) Close() error {
	c.closes++
	return nil
}

var errBroken = errors.New("broken off")

func TestReadAheadPutsTheBodyBack(t *testing.T) {
	t.Parallel()
	const limit = 8
	for name, tc := range map[string]struct {
		body   string
		err    error // at its end
		enough bool  // for what came
		broken bool
	}{
		"empty":               {},
		"short":               {body: "short"},
		"at the limit":        {body: "12345678"},
		"large":               {body: strings.Repeat("large", 10)},
		"broken":              {body: "part", err: errBroken, broken: true},
		"broken, enough":      {body: "part", err: errBroken, enough: true},
		"broken at the limit": {body: "12345678", err: errBroken},
		"broken beyond":       {body: "123456789", err: errBroken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			respond := func() (*http.Response, *closeCounter) {
				body := &closeCounter{Reader: strings.NewReader(tc.body)}
				if tc.err != nil {
					body.Reader = io.MultiReader(body.Reader, iotest.ErrReader(tc.err))
				}
				resp := &http.Response{Body: body}
				ReadAhead(resp, limit, func(part []byte) bool {
					assert.Equal(t, tc.body, string(part))
					return tc.enough
				})
				return resp, body
			}
			resp, body := respond()
			assert.Equal(t, tc.broken, BrokenOff(resp) != nil)
			got, err := io.ReadAll(iotest.OneByteReader(resp.Body))
			require.ErrorIs(t, err, tc.err)
			assert.Equal(t, tc.body, string(got))
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, 1, body.closes)

			for _, bound := range []int64{2, limit, 100} {
				resp, _ = respond() //nolint:bodyclose // it is in memory
				want := &http.Response{Body: io.NopCloser(strings.NewReader(tc.body))}
				if tc.err != nil {
					want.Body = io.NopCloser(io.MultiReader(want.Body, iotest.ErrReader(tc.err)))
				}
				wantData, wantErr := ReadBounded(want.Body, bound)
				data, err := ReadBounded(resp.Body, bound)
				assert.Equal(t, wantErr, err)
				assert.Equal(t, string(wantData), string(data))
			}
		})
	}
}

func TestBrokenOffNeedsNoReadAhead(t *testing.T) {
	t.Parallel()
	require.NoError(t, BrokenOff(&http.Response{Body: io.NopCloser(iotest.ErrReader(errBroken))}))
	require.ErrorIs(t, func() error {
		resp := &http.Response{Body: io.NopCloser(iotest.ErrReader(errBroken))}
		ReadAhead(resp, 1, nil)
		return BrokenOff(resp)
	}(), errBroken)
}

func TestPartEndsWithItsError(t *testing.T) {
	t.Parallel()
	for _, want := range []error{nil, errBroken} {
		part := Part([]byte("part"), want)
		got, err := io.ReadAll(part)
		require.ErrorIs(t, err, want)
		assert.Equal(t, "part", string(got))
		require.NoError(t, part.Close())
		require.NoError(t, BrokenOff(&http.Response{Body: part}))
	}
}
