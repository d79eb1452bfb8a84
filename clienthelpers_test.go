package agrenting

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// testKey is what keyed clients carry. It has no mark and no shape that a
// pattern could tell, so that only knowledge of it redacts it.
const testKey = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"

// keyed is a client with testKey over a base that needs no connection.
func keyed(tb testing.TB, base http.RoundTripper, opts ...Option) *Client {
	tb.Helper()
	return clientOver(tb, base, Static(APIKey(testKey)), opts...)
}

// answering is a base that always answers the same.
func answering(code int, body string, header ...string) *recorder {
	return &recorder{then: func(int, seen) *http.Response { return reply(code, body, header...) }}
}

// only is the one request that a base got.
func (r *recorder) only(tb testing.TB) seen {
	tb.Helper()
	got := r.requests()
	require.Len(tb, got, 1)
	return got[0]
}

// lookupIn is an environment for WithLookupEnv.
func lookupIn(vars map[string]string) Option {
	return WithLookupEnv(func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	})
}

// clientOf is a client of an embedded platform. It is closed before the server.
func clientOf(tb testing.TB, srv *agrentingtest.Server, opts ...Option) *Client {
	tb.Helper()
	c, err := New(append([]Option{WithoutEnvironment(), WithBaseURL(srv.URL), WithTransport(srv.Transport())}, opts...)...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

// assertClean fails when text has the secret in any form, or a query string.
func assertClean(t *testing.T, text string, secrets ...string) {
	t.Helper()
	assertNoSecret(t, text, secrets...)
	if strings.Contains(text, "query-value") {
		t.Errorf("text has a query string: %s", text)
	}
}

// letPass advances the clock of a bubble.
func letPass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time: callers are in a bubble
	synctest.Wait()
}
