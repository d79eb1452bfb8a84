package agrenting

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/record"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// clientAtGate is a client with a store over the given base, and the gate of the
// key in use.
func clientAtGate(t *testing.T, base http.RoundTripper) (*Client, *gate.Gate) {
	t.Helper()
	c := clientOver(t, base, Static(APIKey(testKey)), WithStore(MemoryStore()))
	l, err := c.core.creds.get(t.Context())
	require.NoError(t, err)
	return c, l.Value.gate
}

func TestAPanicOfTheBaseLeavesTheGate(t *testing.T) {
	t.Parallel()
	c, g := clientAtGate(t, tripFunc(func(*http.Request) (*http.Response, error) { panic("base") }))
	assert.PanicsWithValue(t, "base", func() {
		_, _ = c.transport.RoundTrip(request(t, http.MethodGet, "/", nil)) //nolint:bodyclose // it panics
	})
	assert.True(t, isClosed(g.Shut()))
}

func TestLateRequestsUseNewGeneration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		base := answering(http.StatusOK, "{}")
		c, g := clientAtGate(t, base)
		g.Shut()
		done := make(chan error, 1)
		go func() {
			_, err := c.Do(t.Context(), http.MethodGet, "/", nil, nil)
			done <- err
		}()
		advance(time.Second / 2)
		require.Empty(t, base.requests(), "it waits")
		const next = "a-newer-key-than-that"
		require.NoError(t, c.core.stored.Adopt(t.Context(), record.StoredKey{Credential: APIKey(next).c}, 0))
		g.Pass()
		require.NoError(t, <-done)
		assert.Equal(t, next, secretOf(base.only(t).header))
		require.NoError(t, c.Close())
	})
}

// streamingServer responds with headers, and keeps what follows for later.
func streamingServer(t *testing.T, release <-chan struct{}) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			_ = rw.Flush()
			line, _ := bufio.NewReader(rw).ReadString('\n')
			_, _ = io.WriteString(conn, line)
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-release
		_, _ = io.WriteString(w, "the rest")
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestDownloadsAndUpgradesLeaveTheGate(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	srv := streamingServer(t, release)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithTransport(base), WithCredential(APIKey(testKey)),
		WithStore(MemoryStore()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })

	download, err := c.transport.RoundTrip(request(t, http.MethodGet, srv.URL, nil))
	require.NoError(t, err)
	upgrade := request(t, http.MethodGet, srv.URL, nil)
	upgrade.Header.Set("Connection", "Upgrade")
	upgrade.Header.Set("Upgrade", "echo")
	switched, err := c.transport.RoundTrip(upgrade)
	require.NoError(t, err)
	defer switched.Body.Close()
	require.Equal(t, http.StatusSwitchingProtocols, switched.StatusCode)

	l, err := c.core.creds.get(t.Context())
	require.NoError(t, err)
	assert.True(t, isClosed(l.Value.gate.Shut()), "both have their headers")
	close(release)
	assert.Equal(t, "the rest", readAll(t, download))
	conn, ok := switched.Body.(io.ReadWriter)
	require.True(t, ok)
	_, err = io.WriteString(conn, "still here\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	assert.Equal(t, "still here\n", line)
	l.Value.gate.Open()
}

// TestGateSurvivesStoreLoad holds the rule that all requests
// with one key pass one gate: a store load must not bring an open one.
func TestGateSurvivesStoreLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, g := clientAtGate(t, answering(http.StatusOK, "{}"))
		for range 5 {
			advance(2 * time.Second)
			_, err := c.Do(t.Context(), http.MethodGet, "/", nil, nil)
			require.NoError(t, err)
			advance(time.Millisecond)
			l, err := c.core.creds.get(t.Context())
			require.NoError(t, err)
			require.Same(t, g, l.Value.gate)
		}
		require.NoError(t, c.Close())
	})
}
