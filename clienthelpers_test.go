package agrenting

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/sdktest/leak"
)

// testKey is what keyed clients carry. It has no mark and no shape that a
// pattern could tell, so that only knowledge of it redacts it.
const testKey = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"

var scribe = AgentRegistration{
	Name: "Scribe", DID: "did:agrenting:scribe", Capabilities: []string{"writing"}, PricingModel: "fixed", BasePrice: "1.50",
	Description: "writes", Category: "text", Metadata: map[string]any{"callback_url": "https://scribe.example"},
}

// sleepless repeats without pauses worth the name, for tests on real
// connections.
var sleepless = WithRetryPolicy(RetryPolicy{BaseDelay: 1, MaxDelay: 1})

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

// assertClean fails when text has the secret in any form, or a query string.
func assertClean(t *testing.T, text string, secrets ...string) {
	t.Helper()
	leak.AssertNone(t, text, secrets...)
	if strings.Contains(text, "query-value") {
		t.Errorf("text has a query string: %s", text)
	}
}

// letPass advances the clock of a bubble.
func letPass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time: callers are in a bubble
	synctest.Wait()
}

// advance waits in virtual time: its callers are in a bubble. It does not wait
// for others to settle; synctest.Wait does.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where these tests wait
