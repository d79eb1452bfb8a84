package agrenting_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// tenants are the clients of many agents over one base transport.
const tenants = 5000

// tenantBase answers every request at once, and counts how often it is told to close its
// connections.
type tenantBase struct{ closed atomic.Int64 }

func (b *tenantBase) CloseIdleConnections() { b.closed.Add(1) }

func (*tenantBase) RoundTrip(req *http.Request) (*http.Response, error) {
	body := `{"data":[]}`
	if strings.HasSuffix(req.URL.Path, "/auth/authenticate") {
		body = fmt.Sprintf(`{"data":{"session_token":"session-of-%s","expires_at":%q}}`,
			req.Header.Get("X-API-Key"), time.Now().Add(20*time.Hour).UTC().Format(time.RFC3339))
	}
	return &http.Response{
		StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Request: req,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

// tenantKinds are the ways to make the client of one tenant, and the most bytes that it may
// take.
var tenantKinds = map[string]struct {
	most int
	opts func(tb testing.TB, store agrenting.Store, i int) []agrenting.Option
}{
	"fixed key": {3 << 10, func(testing.TB, agrenting.Store, int) []agrenting.Option { return nil }},
	"session": {6 << 10, func(testing.TB, agrenting.Store, int) []agrenting.Option {
		return []agrenting.Option{agrenting.WithSession()}
	}},
	"store": {6 << 10, func(tb testing.TB, store agrenting.Store, i int) []agrenting.Option {
		tb.Helper()
		part, err := agrenting.Namespace(store, fmt.Sprintf("tenant-%d", i))
		require.NoError(tb, err)
		return []agrenting.Option{agrenting.WithStore(part)}
	}},
}

// newTenants returns n clients of one kind, each of which has made a request.
func newTenants(tb testing.TB, kind string, base http.RoundTripper, n int) []*agrenting.Client {
	tb.Helper()
	store := agrenting.MemoryStore()
	clients := make([]*agrenting.Client, n)
	for i := range clients {
		opts := append(tenantKinds[kind].opts(tb, store, i), agrenting.WithoutEnvironment(), agrenting.WithTransport(base),
			agrenting.WithCredential(agrenting.APIKey(fmt.Sprintf("key-%036d", i))))
		c, err := agrenting.New(opts...)
		require.NoError(tb, err)
		resp, err := c.HTTPClient().Get(agrenting.DefaultBaseURL + "/api/v1/tasks")
		require.NoError(tb, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(tb, err)
		require.NoError(tb, resp.Body.Close())
		clients[i] = c
	}
	return clients
}

// measured returns the bytes on the heap and the number of goroutines once nothing short
// runs any more.
func measured() (bytes int64, goroutines int) {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}

//nolint:paralleltest // it measures the whole process
func TestManyClientsTakeFewBytesAndNoGoroutine(t *testing.T) {
	var all []*agrenting.Client // kept, so that nothing is freed while others are measured
	for kind, tc := range tenantKinds {
		t.Run(kind, func(t *testing.T) {
			base := &tenantBase{}
			bytes, goroutines := measured()
			clients := newTenants(t, kind, base, tenants)
			assert.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+10 }, time.Minute, time.Millisecond,
				"no client keeps a goroutine")
			after, _ := measured()
			if each := int(after-bytes) / tenants; !sdktest.RaceEnabled {
				t.Logf("%d bytes each", each)
				assert.LessOrEqual(t, each, tc.most)
			}
			all = append(all, clients...)
		})
	}
	for _, c := range all {
		require.NoError(t, c.Close())
	}
}

func TestClosedClientLeavesSharedBaseAlone(t *testing.T) {
	t.Parallel()
	for kind := range tenantKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			base := &tenantBase{}
			clients := newTenants(t, kind, base, 2)
			require.NoError(t, clients[0].Close())
			assert.Zero(t, base.closed.Load())
			resp, err := clients[1].HTTPClient().Get(agrenting.DefaultBaseURL + "/api/v1/tasks")
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			require.NoError(t, clients[1].Close())
		})
	}
}

func BenchmarkTenant(b *testing.B) {
	for kind := range tenantKinds {
		b.Run(kind, func(b *testing.B) {
			base := &tenantBase{}
			before, _ := measured()
			clients := newTenants(b, kind, base, b.N)
			after, _ := measured()
			b.ReportMetric(float64(after-before)/float64(b.N), "B/client")
			for _, c := range clients {
				require.NoError(b, c.Close())
			}
		})
	}
}
