package agrenting

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Connections are counted, not timed: net/http puts one back before it reports
// the end of the body that came over it.
func TestRequestsAtOnceReuseTheirConnections(t *testing.T) {
	t.Parallel()
	const callers, rounds = 50, 3
	var opened atomic.Int64
	arrived := make(chan chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-<-arrived
		_, _ = w.Write([]byte(`{"data":null}`))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithCredential(APIKey(testKey)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	for range rounds {
		release := make(chan struct{})
		var running sync.WaitGroup
		for range callers {
			running.Go(func() {
				_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				assert.NoError(t, err)
			})
		}
		for range callers {
			arrived <- release // all are under way before one is answered
		}
		close(release)
		running.Wait()
	}
	assert.EqualValues(t, callers, opened.Load(), "%d rounds of %d requests at once need no more connections than one", rounds, callers)
}
