package sdktest

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// TestKey is the key of clients from [Keyed]. It has no mark and no typical
// form, so redaction must know it to remove it.
const TestKey = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"

// Keyed returns a client with TestKey over a base that needs no connection.
func Keyed(tb testing.TB, base http.RoundTripper, opts ...agrenting.Option) *agrenting.Client {
	tb.Helper()
	return ClientOver(tb, base, agrenting.Static(agrenting.APIKey(TestKey)), opts...)
}

// LookupIn returns an option that makes vars the environment.
func LookupIn(vars map[string]string) agrenting.Option {
	return agrenting.WithLookupEnv(func(name string) (string, bool) {
		v, ok := vars[name]
		return v, ok
	})
}

// MemoryServer starts an embedded platform without limits. It ends with the
// test.
func MemoryServer(tb testing.TB, opts ...agrentingtest.Option) *agrentingtest.Server {
	tb.Helper()
	srv := agrentingtest.NewServer(append([]agrentingtest.Option{
		agrentingtest.InMemory(), agrentingtest.WithoutRateLimits(),
	}, opts...)...)
	tb.Cleanup(srv.Close)
	return srv
}

// ClientOf returns a client of an embedded platform. It is closed before the
// server.
func ClientOf(tb testing.TB, srv *agrentingtest.Server, opts ...agrenting.Option) *agrenting.Client {
	tb.Helper()
	c, err := agrenting.New(append([]agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport())}, opts...)...)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, c.Close()) })
	return c
}

// LetPass advances the clock of a bubble.
func LetPass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time: callers are in a bubble
	synctest.Wait()
}

// Advance waits in virtual time, so its callers must be in a bubble. It does
// not wait for other goroutines; synctest.Wait does.
func Advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the only place where these tests wait

// TransportOver returns a transport for APIURL that ignores the environment and
// ends with the test.
func TransportOver(tb testing.TB, base http.RoundTripper, src agrenting.CredentialSource, opts ...agrenting.Option) *agrenting.Transport {
	tb.Helper()
	opts = append([]agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithBaseURL(APIURL), agrenting.WithTransport(base)}, opts...)
	tr, err := agrenting.NewTransport(src, opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, tr.Close()) })
	return tr
}

// ClientOver is like TransportOver, for a client.
func ClientOver(tb testing.TB, base http.RoundTripper, src agrenting.CredentialSource, opts ...agrenting.Option) *agrenting.Client {
	tb.Helper()
	opts = append([]agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithBaseURL(APIURL), agrenting.WithTransport(base), agrenting.WithCredentialSource(src)}, opts...)
	c, err := agrenting.New(opts...)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, c.Close()) })
	return c
}

// Collect walks a list to its end.
func Collect[T any](t *testing.T, c *agrenting.Client, path string, opts ...agrenting.CallOption) (items []T, err error) {
	t.Helper()
	for item, e := range agrenting.List[T](t.Context(), c, path, opts...) {
		require.NoError(t, err, "nothing follows an error")
		if e != nil {
			err = e
			continue
		}
		items = append(items, item)
	}
	return items, err
}

// CallOnce makes a request whose body can be sent only once.
func CallOnce(t *testing.T, c *agrenting.Client, agent string) error {
	t.Helper()
	body := struct{ io.Reader }{strings.NewReader(`{"agent_id":"` + agent + `","task_type":"test"}`)}
	_, err := c.Do(t.Context(), http.MethodPost, "/api/v1/tasks", body, nil, agrenting.CallHeader("Content-Type", "application/json"))
	return err
}
