package agrenting

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// maxAdded is what the transport may add to each request: a copy of the
// request, and one of its header map, which takes two.
const maxAdded = 3

// allocsOf counts what one RoundTrip allocates.
func allocsOf(t *testing.T, rt http.RoundTripper, req *http.Request) float64 {
	t.Helper()
	return testing.AllocsPerRun(500, func() {
		resp, err := rt.RoundTrip(req) //nolint:bodyclose // it is in memory
		if err != nil || resp == nil {
			t.Fatal(err)
		}
	})
}

//nolint:paralleltest // AllocsPerRun counts the whole process
func TestTheTransportAddsAtMostThreeAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	ok := reply(http.StatusOK, "") //nolint:bodyclose // it is in memory
	stub := tripFunc(func(*http.Request) (*http.Response, error) { return ok, nil })
	sources := map[string]CredentialSource{
		"static": Static(APIKey("k1")),
		"cached": CredentialSourceFunc(func(context.Context) (Credential, error) {
			return SessionToken("s1", time.Now().Add(time.Hour)), nil
		}),
		"cached for ever": CredentialSourceFunc(func(context.Context) (Credential, error) { return APIKey("k1"), nil }),
	}
	quiet := slog.New(slog.DiscardHandler)
	for source, src := range sources {
		for _, headers := range []int{0, 1, 3, 5, 6} {
			for method, body := range map[string]string{http.MethodGet: "", http.MethodPost: "body"} {
				t.Run(fmt.Sprintf("%s, %d headers, %s", source, headers, method), func(t *testing.T) {
					tr := transportOver(t, stub, src, WithAgentID("agent-1"), WithLogger(quiet))
					req := request(t, method, "/x", strings.NewReader(body))
					for i := range headers {
						req.Header.Set(fmt.Sprint("X-Header-", i), "v")
					}
					bare := allocsOf(t, stub, req)
					assert.LessOrEqual(t, allocsOf(t, tr, req)-bare, float64(maxAdded))
				})
			}
		}
	}

	// A map of more than eight entries takes two allocations more, no matter what makes
	// it, and one that outgrows the eight here takes three.
	tr := transportOver(t, stub, Static(APIKey("k1")), WithAgentID("agent-1"))
	for headers, most := range map[int]float64{7: maxAdded + 3, 8: maxAdded + 3, 9: maxAdded + 2, 30: maxAdded + 2} {
		req := request(t, http.MethodGet, "/x", nil)
		for i := range headers {
			req.Header.Set(fmt.Sprint("X-Header-", i), "v")
		}
		assert.LessOrEqual(t, allocsOf(t, tr, req), most, "%d headers", headers)
	}

	// Elsewhere, and for callers who bring their own credential, nothing.
	foreign := request(t, http.MethodGet, "https://other.test/x", nil)
	assert.Zero(t, allocsOf(t, tr, foreign))
	own := request(t, http.MethodGet, "/x", nil)
	own.Header.Set("Authorization", "Bearer mine")
	assert.Zero(t, allocsOf(t, tr, own))
}

//nolint:paralleltest // AllocsPerRun counts the whole process
func TestResponseWithoutRetryAllocatesNoMore(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates too")
	}
	// The retry machinery allocates dozens of times: who does not need it does
	// not enter it.
	for _, code := range []int{200, 201, 204, 301, 400, 403, 404, 422, 501} {
		answer := reply(code, "") //nolint:bodyclose // it is in memory
		tr := transportOver(t, tripFunc(func(*http.Request) (*http.Response, error) { return answer, nil }), Static(APIKey("k1")))
		most := maxAdded
		if code >= http.StatusBadRequest {
			most += 3 // what CheckResponse is told
		}
		assert.LessOrEqual(t, allocsOf(t, tr, request(t, http.MethodGet, "/x", nil)), float64(most), "%d", code)
	}
}

//nolint:paralleltest // AllocsPerRun counts the whole process
func TestCredentialLookupDoesNotAllocate(t *testing.T) {
	ctx := ContextWithAgent(t.Context(), "agent-1")
	for name, src := range map[string]CredentialSource{
		"static": Static(APIKey("k1")),
		"cached": CredentialSourceFunc(func(context.Context) (Credential, error) {
			return SessionToken("s1", time.Now().Add(time.Hour)), nil
		}),
	} {
		tr := transportOver(t, &recorder{}, src)
		_, err := tr.creds.get(ctx)
		require.NoError(t, err)
		assert.Zero(t, testing.AllocsPerRun(500, func() {
			if l, err := tr.creds.get(ctx); err != nil || l == nil || !perCallFrom(ctx).agent.set() {
				t.Fatal(err)
			}
		}), name)
	}
}

// stream is a body of n bytes that is never in memory as a whole.
type stream struct{ left int64 }

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.left))
	s.left -= int64(n)
	return n, nil
}

func (*stream) Close() error { return nil }

// allocatedBy is how many bytes the whole process allocates in the meantime.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

//nolint:paralleltest // the counts are of the whole process
func TestALargeUploadIsNotBuffered(t *testing.T) {
	const size, slack = 64 << 20, 1 << 20
	var got, calls int64
	failing := 0 // how many of the next requests fail
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		n, _ := io.Copy(io.Discard, r.Body)
		got = n
		if failing > 0 {
			failing--
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)

	send := func(rt http.RoundTripper, getBody bool) (int, uint64) {
		req := request(t, http.MethodPut, srv.URL+"/upload", &stream{size})
		req.ContentLength = size
		if getBody {
			req.GetBody = func() (io.ReadCloser, error) { return &stream{size}, nil }
		}
		calls = 0
		var code int
		bytes := allocatedBy(func() {
			resp, err := rt.RoundTrip(req)
			require.NoError(t, err)
			code = resp.StatusCode
			readAll(t, resp)
		})
		assert.EqualValues(t, size, got)
		return code, bytes
	}
	base := loopback(t)
	tr := transportOver(t, base, newMint("k1"), WithBaseURL(srv.URL), sleepless)
	send(base, true) // warms up
	_, bare := send(base, true)
	_, bareAgain := send(base, true)
	bare = max(bare, bareAgain)

	for _, getBody := range []bool{true, false} {
		code, ours := send(tr, getBody)
		assert.Equal(t, http.StatusOK, code)
		assert.EqualValues(t, 1, calls)
		assert.Less(t, ours, bare+slack, "GetBody %t", getBody)
	}

	failing = 2
	code, ours := send(tr, true)
	assert.Equal(t, http.StatusOK, code, "repeated until it succeeds")
	assert.EqualValues(t, 3, calls)
	assert.Less(t, ours, 3*bare+slack)

	failing = 2
	code, ours = send(tr, false)
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.EqualValues(t, 1, calls, "a stream is sent once")
	assert.Less(t, ours, bare+slack)
}
