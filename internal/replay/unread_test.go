package replay_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/replay"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// A connection turns out to be dead after the base transport has closed the body, and
// before or after it has read from it.
func TestBodyOfRequestOnDeadConnection(t *testing.T) {
	t.Parallel()
	for name, read := range map[string]bool{"unread": false, "read": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body := sdktest.NewSpyBody("content")
			req := sdktest.Request(t, http.MethodPost, "/x", body)
			b := replay.Of(req, true)
			first, getBody := b.First(req), b.Unread()
			if read {
				_, err := first.Read(make([]byte, 1))
				require.NoError(t, err)
			}
			require.NoError(t, first.Close())
			again, err := getBody()
			if read {
				require.Error(t, err)
				require.NotErrorIs(t, err, replay.ErrNot, "that one is about a 401")
			} else {
				require.NoError(t, err)
				content, rerr := io.ReadAll(again)
				require.NoError(t, rerr)
				require.NoError(t, again.Close())
				assert.Equal(t, "content", string(content))
			}
			b.Release()
			assert.Equal(t, 1, body.Closed())
		})
	}
}
