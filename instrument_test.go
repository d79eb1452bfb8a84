package agrenting_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// spy is an instrumentation that notes what it is told.
type spy struct {
	mu    sync.Mutex
	lines []string
	told  []any
}

func (s *spy) add(line string, told any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines, s.told = append(s.lines, line), append(s.told, told)
}

func (s *spy) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.lines
	s.lines = nil
	return out
}

type spanKey struct{}

// ending is a status or the word error.
func ending(status int, err error) string {
	if err != nil {
		return "error"
	}
	return strconv.Itoa(status)
}

func (s *spy) option() agrenting.Option {
	return agrenting.WithInstrumentation(agrenting.Instrumentation{
		Request: func(ctx context.Context, r agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
			s.add(strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Purpose, r.Method, r.Path)), r)
			if r.Purpose == "verify" { // as often as the SDK needs
				return context.WithValue(ctx, spanKey{}, "verify"), nil
			}
			return context.WithValue(ctx, spanKey{}, "request"), func(res agrenting.RequestResult) {
				s.add(fmt.Sprintf("ended %s after %d", ending(res.StatusCode, res.Err), res.Attempts), res)
			}
		},
		Attempt: func(ctx context.Context, a agrenting.AttemptInfo) (context.Context, func(agrenting.AttemptResult)) {
			span, _ := ctx.Value(spanKey{}).(string)
			if span == "verify" {
				return nil, nil //nolint:nilnil // it changes nothing
			}
			s.add(fmt.Sprintf("%s: attempt %d %s generation %d", span, a.Number, a.Reason, a.Generation), a)
			return context.WithValue(ctx, spanKey{}, "attempt"), func(res agrenting.AttemptResult) {
				s.add("got "+ending(res.StatusCode, res.Err), res)
			}
		},
	})
}

func TestInstrumentationSeesRequestsAndAttempts(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		method, target string
		header         string // a credential of the caller
		codes          []int  // 0 breaks off
		replace        bool   // the credential dies with the first request
		want           []string
	}{
		"success": {
			method: http.MethodGet, codes: []int{200},
			want: []string{"GET /x", "request: attempt 1 first generation 1", "got 200", "ended 200 after 1"},
		},
		"retries": {
			method: http.MethodGet, codes: []int{503, 0, 200},
			want: []string{
				"GET /x", "request: attempt 1 first generation 1", "got 503", "request: attempt 2 retry generation 1", "got error",
				"request: attempt 3 retry generation 1", "got 200", "ended 200 after 3",
			},
		},
		"POST that breaks off": {
			method: http.MethodPost, codes: []int{0},
			want: []string{"POST /x", "request: attempt 1 first generation 1", "got error", "ended error after 1"},
		},
		"resend with the same credential": {
			method: http.MethodGet, codes: []int{401, 200},
			want: []string{
				"GET /x", "request: attempt 1 first generation 1", "got 401", "verify GET /api/v1/hirings/pending",
				"request: attempt 2 same generation 1", "got 200", "ended 200 after 2",
			},
		},
		"resend with a renewed credential": {
			method: http.MethodGet,
			codes:  []int{401, 200}, replace: true,
			want: []string{
				"GET /x", "request: attempt 1 first generation 1", "got 401", "verify GET /api/v1/hirings/pending",
				"request: attempt 2 renewed generation 2", "got 200", "ended 200 after 2",
			},
		},
		"another host": {
			method: http.MethodGet, target: "https://files.test/y?sig=query-value", codes: []int{200},
			want: []string{"GET /y", "request: attempt 1 first generation 0", "got 200", "ended 200 after 1"},
		},
		"credential of the caller": {
			method: http.MethodGet, header: "Bearer mine", codes: []int{401},
			want: []string{"GET /x", "request: attempt 1 first generation 0", "got 401", "ended 401 after 1"},
		},
		"user in the URL": {
			method: http.MethodGet, target: "https://user:word@api.agrenting.test/x", codes: []int{200},
			want: []string{"GET /x", "request: attempt 1 first generation 1", "got 200", "ended 200 after 1"},
		},
		"plain http": {
			method: http.MethodGet, target: "http://files.test/x",
			want: []string{"GET /x", "ended error after 0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src := sdktest.NewSource("k1")
				base := &sdktest.Script{Answer: func(n int, r *http.Request) (*http.Response, error) {
					assert.Equal(t, "attempt", r.Context().Value(spanKey{}))
					if tc.replace && n == 1 {
						src.Replace(agrenting.APIKey("k2"))
					}
					if code := tc.codes[n-1]; code != 0 {
						return sdktest.Reply(code, ""), nil
					}
					return nil, io.ErrUnexpectedEOF
				}}
				var s spy
				valid := "k1"
				if tc.replace {
					valid = "k2"
				}
				tr := sdktest.TransportOver(t, sdktest.Verifying(valid, base), src, s.option())
				if tc.target == "" {
					tc.target = "/x"
				}
				req := sdktest.Request(t, tc.method, tc.target, nil)
				if tc.header != "" {
					req.Header.Set("Authorization", tc.header)
				}
				resp, err := tr.RoundTrip(req) //nolint:bodyclose // ReadAll closes it
				if err == nil {
					if resp.StatusCode < 400 {
						assert.Same(t, req, resp.Request)
					}
					sdktest.ReadAll(t, resp)
				}
				assert.Equal(t, tc.want, withoutTrials(s.take()))
			})
		})
	}
}

func TestInstrumentationDescribesTheCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const id = "req-1"
		base := sdktest.Answering(http.StatusOK, "{}", "X-Request-Id", id, "X-Ratelimit-Limit", "60", "X-Ratelimit-Remaining", "59")
		src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			sdktest.Advance(2 * time.Second)
			return agrenting.APIKey(sdktest.TestKey), nil
		})
		var s spy
		c := sdktest.ClientOver(t, base, src, s.option())
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		fingerprint := agrenting.APIKey(sdktest.TestKey).Fingerprint()
		require.Len(t, s.told, 4)
		assert.Equal(t, agrenting.RequestInfo{Method: "GET", Scheme: "https", Host: "api.agrenting.test", Path: "/x"}, s.told[0])
		assert.Equal(t, agrenting.AttemptInfo{
			Number: 1, Reason: "first", Generation: 1, Kind: agrenting.KindAPIKey, Fingerprint: fingerprint,
			Source: "WithCredentialSource", Waited: 2 * time.Second,
		}, s.told[1])
		assert.Equal(t, agrenting.AttemptResult{StatusCode: 200}, s.told[2])
		assert.Equal(t, agrenting.RequestResult{
			StatusCode: 200, Attempts: 1, Duration: 2 * time.Second, RequestID: id,
			Rate: agrenting.Rate{Known: true, Limit: 60, Remaining: 59},
		}, s.told[3])
	})
}

func TestInstrumentationSeesCallsOfTheSDK(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s spy
		w := sdktest.NewSessionWorld(t)
		c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{LogoutOnClose: true}), s.option())
		require.NoError(t, w.Call(c))
		w.Server.RevokeSessions()
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Close())
		var purposes []string
		for _, v := range s.told {
			if r, ok := v.(agrenting.RequestInfo); ok {
				purposes = append(purposes, r.Purpose)
			}
		}
		assert.Contains(t, purposes, "exchange")
		assert.Contains(t, purposes, "verify")
		assert.Contains(t, purposes, "logout")
		assert.Contains(t, purposes, "")
	})
}

func TestInstrumentationSeesRotations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s spy
		w := sdktest.NewRotationWorld(t)
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Strategy: agrenting.Overlap}, s.option())
		require.NoError(t, w.Call(c))
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())
		assert.Contains(t, strings.Join(s.take(), "\n"), "rotate POST /api/v1/agents/")
	})
}

func TestInstrumentationIsGivenNoSecret(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]string{
		"query": "/x?key=" + sdktest.TestKey, "path": "/x/" + sdktest.TestKey, "user": "https://u:" + sdktest.TestKey + "@api.agrenting.test/x",
		"fragment": "/x#" + sdktest.TestKey, "another host": "https://files.test/x/" + sdktest.TestKey,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := &sdktest.Script{Answer: func(_ int, r *http.Request) (*http.Response, error) {
				return nil, errors.New("refused " + fmt.Sprint(r.Header))
			}}
			var s spy
			var log bytes.Buffer
			c := sdktest.Keyed(t, base, s.option(), sdktest.Sleepless,
				agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
			req := sdktest.Request(t, http.MethodPost, target, nil)
			req.Header.Set("X-Other", "o")
			require.Error(t, sdktest.Failure(c.Transport(), req))
			require.Len(t, s.told, 4)
			for _, v := range s.told {
				sdktest.AssertNoSecret(t, fmt.Sprintf("%v %+v %#v", v, v, v), sdktest.TestKey)
			}
			sdktest.AssertNoSecret(t, log.String(), sdktest.TestKey)
		})
	}
}

func TestRequestIDShowsNoSecret(t *testing.T) {
	t.Parallel()
	const uuid = "123e4567-e89b-12d3-a456-426614174000"
	for name, tc := range map[string]struct{ method, path, id, want string }{
		"ordinary":               {http.MethodGet, "/x", "req-1", "req-1"},
		"echo of the credential": {http.MethodGet, "/x", "req-" + sdktest.TestKey, "req-[redacted]"},
		"word of a new key":      {http.MethodPost, "/api/v1/user/tokens", "abcdefgh", ""},
		"UUID of a new key":      {http.MethodPost, "/api/v1/user/tokens", uuid, uuid},
		"control characters":     {http.MethodGet, "/x", "req\t1", "req 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s spy
			src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return agrenting.APIKey(sdktest.TestKey), nil })
			c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, "{}", "X-Request-Id", tc.id), src, s.option())
			_, err := c.Do(t.Context(), tc.method, tc.path, nil, nil)
			require.NoError(t, err)
			require.Len(t, s.told, 4)
			res, ok := s.told[3].(agrenting.RequestResult)
			require.True(t, ok)
			assert.Equal(t, tc.want, res.RequestID)
		})
	}
}

func TestPanickingInstrumentationDoesNotAffectRequests(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]agrenting.Instrumentation{
		"request": {Request: func(context.Context, agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
			panic("key " + sdktest.TestKey)
		}},
		"end of a request": {Request: func(ctx context.Context, _ agrenting.RequestInfo) (context.Context, func(agrenting.RequestResult)) {
			return ctx, func(agrenting.RequestResult) { panic("key " + sdktest.TestKey) }
		}},
		"attempt": {Attempt: func(context.Context, agrenting.AttemptInfo) (context.Context, func(agrenting.AttemptResult)) {
			panic("key " + sdktest.TestKey)
		}},
		"end of an attempt": {Attempt: func(context.Context, agrenting.AttemptInfo) (context.Context, func(agrenting.AttemptResult)) {
			return nil, func(agrenting.AttemptResult) { panic("key " + sdktest.TestKey) }
		}},
		"start": {Start: func(func() agrenting.Status) func() { panic("key " + sdktest.TestKey) }},
		"stop":  {Start: func(func() agrenting.Status) func() { return func() { panic("key " + sdktest.TestKey) } }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s spy
			var log bytes.Buffer
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL),
				agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)), agrenting.WithTransport(sdktest.Answers(http.StatusOK)),
				agrenting.WithInstrumentation(broken), s.option(), agrenting.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
			require.NoError(t, err)
			for range 3 {
				_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				require.NoError(t, err)
			}
			require.NoError(t, c.Close())
			assert.Len(t, s.take(), 12, "the other instrumentation is called")
			assert.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), log.String())
			sdktest.AssertNoSecret(t, log.String(), sdktest.TestKey)
		})
	}
}

func TestInstrumentationEndsIfTheBasePanics(t *testing.T) {
	t.Parallel()
	var s spy
	base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) { panic("the base") })
	c := sdktest.Keyed(t, base, s.option())
	assert.Panics(t, func() { _ = sdktest.Failure(c.Transport(), sdktest.Request(t, http.MethodGet, "/x", nil)) })
	assert.Equal(t, []string{"GET /x", "request: attempt 1 first generation 1", "got 0", "ended 0 after 1"}, s.take())
}

func TestInstrumentationStartsAndStops(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(...agrenting.Option) (io.Closer, error){
		"New": func(opts ...agrenting.Option) (io.Closer, error) { return agrenting.New(opts...) },
		"NewTransport": func(opts ...agrenting.Option) (io.Closer, error) {
			return agrenting.NewTransport(agrenting.Static(agrenting.APIKey("k1")), opts...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var status func() agrenting.Status
			stops := 0
			c, err := open(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithCredential(agrenting.APIKey("k1")),
				agrenting.WithInstrumentation(agrenting.Instrumentation{Start: func(s func() agrenting.Status) func() {
					status = s
					return func() { stops++ }
				}}))
			require.NoError(t, err)
			assert.Equal(t, agrenting.StateReady, status().State)
			require.NoError(t, c.Close())
			require.NoError(t, c.Close())
			assert.Equal(t, 1, stops)
			assert.Equal(t, agrenting.StateClosed, status().State)
		})
	}
}

func TestSeveralObserversHearAllEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		hear := func(name string) func(agrenting.Event) {
			return func(e agrenting.Event) { heard = append(heard, name+" "+string(e.Type)) }
		}
		c := sdktest.ClientOver(t, sdktest.Answers(http.StatusOK), sdktest.NewSource("k1"),
			agrenting.WithObserver(hear("a")), agrenting.WithInstrumentation(agrenting.Instrumentation{Event: hear("b")}),
			agrenting.WithObserver(hear("c")))
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		assert.Equal(t, []string{"a renewed", "b renewed", "c renewed"}, heard)
	})
}

func TestInstrumentationWithoutFunctionsIsRefused(t *testing.T) {
	t.Parallel()
	_, err := agrenting.New(agrenting.WithCredential(agrenting.APIKey("k1")), agrenting.WithInstrumentation(agrenting.Instrumentation{}))
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}

func TestNestedClientsCountAttemptsSeparately(t *testing.T) {
	t.Parallel()
	var above, below spy
	inner := sdktest.Keyed(t, sdktest.Answers(http.StatusOK), agrenting.WithBaseURL("https://inner.test"), below.option())
	outer := sdktest.Keyed(t, inner.Transport(), above.option())
	for _, c := range []*agrenting.Client{outer, sdktest.Keyed(t, sdktest.Keyed(t, sdktest.Answers(http.StatusOK)).Transport(), above.option())} {
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, []string{"GET /x", "request: attempt 1 first generation 1", "got 200", "ended 200 after 1"}, above.take())
	}
	assert.Len(t, below.take(), 4)
}

// records decodes the log records of a client.
func records(t *testing.T, log *bytes.Buffer) (out []map[string]any) {
	t.Helper()
	for dec := json.NewDecoder(log); dec.More(); {
		var r map[string]any
		require.NoError(t, dec.Decode(&r))
		delete(r, "time")
		out = append(out, r)
	}
	return out
}

func TestDebugLogHasOneRecordPerResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		opt := agrenting.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		n := 0
		base := sdktest.RoundTripFunc(func(*http.Request) (*http.Response, error) {
			n++
			sdktest.Advance(time.Second)
			return sdktest.Reply([]int{503, 200, 404}[n-1], "{}", "X-Request-Id", fmt.Sprint("req-", n)), nil
		})
		c := sdktest.Keyed(t, base, opt, sdktest.Sleepless)
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallQuery(map[string][]string{"q": {"query-value"}}))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), http.MethodGet, "/y", nil, nil)
		require.Error(t, err)
		sdktest.AssertClean(t, log.String(), sdktest.TestKey)

		var texts []string
		var last map[string]any
		for _, r := range records(t, &log) {
			texts = append(texts, fmt.Sprint(r["msg"]))
			if r["msg"] == "agrenting: response" {
				last = r
			}
		}
		assert.Equal(t, []string{
			"agrenting: request", "agrenting: retrying request", "agrenting: request", "agrenting: response",
			"agrenting: request", "agrenting: response",
		}, texts)
		assert.Equal(t, map[string]any{
			"level": "DEBUG", "msg": "agrenting: response", "method": "GET", "host": "api.agrenting.test", "path": "/y",
			"generation": 1.0, "credential": agrenting.APIKey(sdktest.TestKey).Fingerprint(),
			"status": 404.0, "attempts": 1.0, "duration": 1e9, "request_id": "req-3",
		}, last)
	})
}

func TestDebugLogHasFailures(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	opt := agrenting.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	c := sdktest.Keyed(t, sdktest.Answers(0), opt)
	_, err := c.Do(t.Context(), http.MethodPatch, "/x", nil, nil)
	require.Error(t, err)
	all := records(t, &log)
	require.Len(t, all, 2)
	assert.Equal(t, "agrenting: request failed", all[1]["msg"])
	assert.Equal(t, "unexpected EOF", all[1]["error"])
}

// withoutTrials returns what a spy has seen without the calls that ask about a new credential
// in the background, and without the repeated requests that ask about the old one.
func withoutTrials(seen []string) []string {
	seen = slices.Compact(seen)
	asked := false
	return slices.DeleteFunc(seen, func(s string) bool {
		again := asked && strings.HasPrefix(s, "verify ")
		asked = asked || strings.HasPrefix(s, "verify ")
		return again
	})
}
