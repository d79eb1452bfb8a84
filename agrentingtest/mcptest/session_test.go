package mcptest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/mcptest"
)

// stream opens an HTTP+SSE stream, and returns the URL for messages and what reads the
// lines that follow. The caller closes the body.
func (w *world) stream(path string, header http.Header) (resp *http.Response, messages string, lines *bufio.Reader) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.URL+path, http.NoBody)
	require.NoError(w.t, err)
	resp, err = headers{header, w.Transport()}.RoundTrip(req)
	require.NoError(w.t, err)
	lines = bufio.NewReader(resp.Body)
	for range 2 {
		line, err := lines.ReadString('\n')
		require.NoError(w.t, err)
		if after, ok := strings.CutPrefix(line, "data: "); ok {
			messages = strings.TrimSpace(after)
		}
	}
	return resp, messages, lines
}

const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`

func TestEveryRequestNeedsACredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	resp, hirerMessages, _ := w.stream(hirerSSE, w.token(w.user))
	t.Cleanup(func() { _ = resp.Body.Close() })
	resp, agentMessages, _ := w.stream(agentSSE, w.key(w.worker))
	t.Cleanup(func() { _ = resp.Body.Close() })
	assert.Regexp(t, `^/mcp/hirer/messages/[A-Z0-9]{20,}$`, hirerMessages)
	assert.Regexp(t, `^/mcp/messages/[A-Z0-9]{20,}$`, agentMessages)
	for _, c := range []struct{ method, path, body string }{
		{"POST", streamable, ping},
		{"GET", streamable, ""},
		{"DELETE", streamable, ""},
		{"GET", hirerSSE, ""},
		{"POST", hirerMessages, ping},
		{"GET", agentSSE, ""},
		{"POST", agentMessages, ping},
	} {
		for name, header := range map[string]http.Header{
			"none":    nil,
			"unknown": {"Authorization": {"Bearer ap_unknown"}},
			"two":     {"Authorization": w.token(w.user)["Authorization"], "X-Api-Key": w.key(w.worker)["X-Api-Key"]},
		} {
			refused, body := w.send(c.method, c.path, header, c.body)
			assert.Equal(t, 401, refused.status, "%s %s %s", c.method, c.path, name)
			assert.Contains(t, body, `"code":"UNAUTHORIZED"`)
			assert.Empty(t, refused.header["Www-Authenticate"], "clients would start OAuth")
		}
	}
	assert.Equal(t, 0, w.Count("GET /.well-known/*"))
}

func TestEndpointsAcceptEachKindOfCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	bearer := func(secret string) http.Header { return http.Header{"Authorization": {"Bearer " + secret}} }
	token := w.NewToken(w.user.ID, agrentingtest.TokenConfig{}).Secret
	session, _ := w.NewSession(w.NewKey(w.own.ID).Secret)
	for path, as := range map[string]map[string]http.Header{
		streamable: {"token": bearer(token), "token as key": {"X-Api-Key": {token}}, "session": bearer(session), "key": w.key(w.own)},
		hirerSSE:   {"token": bearer(token), "token as key": {"X-Api-Key": {token}}, "session": bearer(session), "key": w.key(w.own)},
		agentSSE:   {"token": bearer(token), "session": bearer(session), "key": w.key(w.own), "alias": {"Api-Key": w.key(w.own)["X-Api-Key"]}},
	} {
		for name, header := range as {
			s := w.session(path, header)
			if path == agentSSE {
				_, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "hiring://pending"})
				assert.NoError(t, err, name)
			} else {
				s.do("check_balance", nil)
			}
		}
	}
}

// The user owns two agents.
func TestMessagesNameTheirAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	header := w.token(w.owner)
	refused, body := w.send("GET", agentSSE, header, "")
	assert.Equal(t, 422, refused.status)
	assert.Contains(t, body, `"field":"X-Agent-ID"`)
	header["X-Agent-Id"] = []string{w.worker.ID}
	id := w.session(streamable, w.token(w.user)).hire(w.worker)
	worker := w.session(agentSSE, header)
	worker.do("add_hiring_message", object{"hiring_id": id, "content": "I begin"})
	header["X-Agent-Id"] = []string{w.quick.ID}
	assert.Contains(t, worker.fails("submit_hiring_result", object{"hiring_id": id, "output": "x"}), "NOT_FOUND (HTTP 404)", "the message says who acts")
	header["X-Agent-Id"] = []string{w.own.ID}
	assert.Contains(t, worker.fails("submit_hiring_result", object{"hiring_id": id, "output": "x"}), "Forbidden")
}

// initialize begins an MCP session.
const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`

// errorsOf returns the errors of an envelope.
func errorsOf(t *testing.T, body string) any {
	t.Helper()
	var envelope object
	require.NoError(t, json.Unmarshal([]byte(body), &envelope), body)
	return envelope["errors"]
}

// An MCP session belongs to the user or agent that began it, with any of their
// credentials.
func TestSessionsBelongToOneCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	began, _ := w.send("POST", streamable, w.token(w.user), initialize)
	require.Equal(t, 200, began.status)
	session := began.header["Mcp-Session-Id"]
	require.Len(t, session, 1)
	in := func(header http.Header) http.Header { header["Mcp-Session-Id"] = session; return header }
	resp, messages, lines := w.stream(hirerSSE, w.token(w.user))
	t.Cleanup(func() { _ = resp.Body.Close() })
	resp, work, _ := w.stream(agentSSE, w.key(w.worker))
	t.Cleanup(func() { _ = resp.Body.Close() })

	status := func(method, path string, header http.Header) int {
		body := ping
		if method != "POST" {
			body = ""
		}
		got, _ := w.send(method, path, header, body)
		return got.status
	}
	assert.Equal(t, 202, status("POST", messages, w.token(w.user)), "another token of the same user")
	assert.Equal(t, 200, status("POST", streamable, in(w.token(w.user))))
	for _, stranger := range []http.Header{w.token(w.owner), w.key(w.worker), w.key(w.own)} {
		assert.Equal(t, 404, status("POST", messages, stranger))
		for _, method := range []string{"POST", "GET", "DELETE"} {
			foreign := in(stranger)
			body := map[string]string{"POST": ping}[method]
			refused, got := w.send(method, streamable, foreign, body)
			foreign["Mcp-Session-Id"] = []string{"unknown"}
			unknown, want := w.send(method, streamable, foreign, body)
			assert.Equal(t, []int{404, 404}, []int{refused.status, unknown.status}, method)
			assert.Equal(t, errorsOf(t, want), errorsOf(t, got), method)
			assert.Equal(t, []any{object{"code": "NOT_FOUND", "message": "MCP session not found"}}, errorsOf(t, got), method)
			assert.Equal(t, unknown.header["Content-Type"], refused.header["Content-Type"])
			assert.Equal(t, []string{"application/json; charset=utf-8"}, refused.header["Content-Type"])
		}
	}
	session2, _ := w.NewSession(w.NewKey(w.worker.ID).Secret)
	assert.Equal(t, 202, status("POST", work, http.Header{"Authorization": {"Bearer " + session2}}), "another credential of the same agent")
	for _, stranger := range []http.Header{w.key(w.quick), w.token(w.user)} {
		assert.Equal(t, 404, status("POST", work, stranger))
	}
	assert.Equal(t, 404, status("POST", "/mcp/messages/UNKNOWN", w.key(w.worker)))
	line, err := lines.ReadString('\n')
	for err == nil && !strings.HasPrefix(line, "data: ") {
		line, err = lines.ReadString('\n')
	}
	require.NoError(t, err)
	assert.JSONEq(t, `{"jsonrpc":"2.0","id":1,"result":{}}`, strings.TrimPrefix(line, "data: "), "the one message that was let in")
	assert.Equal(t, 204, status("DELETE", streamable, in(w.token(w.user))))
	assert.Equal(t, 404, status("POST", streamable, in(w.token(w.user))))
}

func TestMalformedMessagesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	resp, messages, _ := w.stream(hirerSSE, w.token(w.user))
	t.Cleanup(func() { _ = resp.Body.Close() })
	for body, want := range map[string]int{
		`{`: 400, `[]`: 400, "": 400, `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 5<<20) + `"}`: 413,
	} {
		refused, answer := w.send("POST", messages, w.token(w.user), body)
		assert.Equal(t, want, refused.status)
		assert.Contains(t, answer, `"code":"VALIDATION_ERROR"`)
	}
	unknown, _ := w.send("POST", hirerSSE, w.token(w.user), ping)
	assert.Equal(t, 404, unknown.status, "clients that try Streamable HTTP first fall back to HTTP+SSE")
}

func TestStreamsAreLoggedWhileTheyLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	resp, _, _ := w.stream(hirerSSE, w.token(w.user))
	defer func() { _ = resp.Body.Close() }()
	logged := w.Requests()
	require.Len(t, logged, 1)
	assert.Equal(t, []any{200, "user:" + w.user.ID, agrentingtest.KindUserToken},
		[]any{logged[0].Status, logged[0].Principal, logged[0].CredentialKind})
	assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	assert.NotEmpty(t, resp.Header.Get("X-Ratelimit-Remaining"))
}

// client is one of the SDK, which sends sessions and renews them. The caller closes it.
func (w *world) client(agent *agrentingtest.Agent, opts ...agrenting.Option) *agrenting.Client {
	w.t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.URL), agrenting.WithTransport(w.Transport()),
		agrenting.WithCredential(agrenting.APIKey(w.NewKey(agent.ID).Secret)), agrenting.WithSession(),
	}, opts...)...)
	require.NoError(w.t, err)
	return c
}

// check calls a tool that works on the endpoint.
func (s tools) check(path string) error {
	if path == agentSSE {
		_, err := s.ReadResource(s.t.Context(), &mcp.ReadResourceParams{URI: "hiring://pending"})
		return err
	}
	_, err := s.try(s.t.Context(), "check_balance", nil)
	return err
}

// The credential expires and is ended early, ten times each. The MCP session continues.
func TestMCPSessionsOutliveCredentials(t *testing.T) {
	t.Parallel()
	for _, path := range []string{streamable, hirerSSE, agentSSE} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, agrentingtest.WithSessionTTL(time.Hour))
				defer w.Close()
				client := w.client(w.own)
				defer client.Close()
				s := tools{t, w.connectWith(path, client.HTTPClient(), nil)}
				defer func() { _ = s.Close() }()
				for range 10 {
					require.NoError(t, s.check(path))
					advance(61 * time.Minute)
					require.NoError(t, s.check(path))
					advance(10 * time.Minute)
					w.RevokeSessions()
					require.NoError(t, s.check(path))
				}
				assert.GreaterOrEqual(t, w.Stats().SessionsIssued, int64(20))
				assert.Equal(t, 1, w.Count("GET "+path), "the stream of the beginning")
			})
		})
	}
}

// A client that uses a dead session gets a 401 for the message, although the stream is
// live.
func TestDeadCredentialsAreRefusedOnLiveStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithSessionTTL(time.Hour))
		defer w.Close()
		session, _ := w.NewSession(w.NewKey(w.own.ID).Secret)
		header := http.Header{"Authorization": {"Bearer " + session}}
		resp, messages, _ := w.stream(agentSSE, header)
		defer func() { _ = resp.Body.Close() }()
		advance(2 * time.Hour)
		refused, body := w.send("POST", messages, header, ping)
		assert.Equal(t, 401, refused.status)
		assert.Contains(t, body, "session expired")
		accepted, _ := w.send("POST", messages, w.key(w.own), ping)
		assert.Equal(t, 202, accepted.status)
	})
}

// The end of a stream also ends its running tool. Otherwise, the bubble would not end.
func TestEndOfStreamCancelsTools(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*world, context.CancelFunc){
		"server closed":  func(w *world, _ context.CancelFunc) { w.Close() },
		"call canceled":  func(_ *world, cancel context.CancelFunc) { cancel() },
		"connection cut": func(w *world, _ context.CancelFunc) { w.cut() },
	}
	for _, path := range []string{streamable, hirerSSE} {
		for name, end := range ends {
			t.Run(path+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					defer w.Close()
					s := tools{t, w.connect(path, w.token(w.user))}
					defer func() { _ = s.Close() }()
					id := s.hire(w.worker)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					failed := make(chan error, 1)
					go func() {
						_, err := s.try(ctx, "wait_for_hirings", object{"hiring_ids": []string{id}, "timeout_seconds": 600})
						failed <- err
					}()
					advance(5100 * time.Millisecond)
					polls := w.Count("GET /api/v1/hirings/*")
					assert.Equal(t, 21, polls)
					end(w, cancel)
					advance(time.Minute)
					assert.Equal(t, polls, w.Count("GET /api/v1/hirings/*"))
					require.Error(t, <-failed)
				})
			})
		}
	}
}

func TestCloseEndsStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.connect(streamable, w.token(w.user))
		w.connect(hirerSSE, w.token(w.user))
		w.connect(agentSSE, w.key(w.worker))
		synctest.Wait()
		w.Close()
	})
}

// The endpoints are reached through another server, by whatever name.
func TestEndpointsCanBeMounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Cleanup(w.Close)
	other := httptest.NewServer(w.Handler())
	t.Cleanup(other.Close)
	for _, path := range []string{streamable, hirerSSE} {
		client := &http.Client{Transport: renamed{"agrenting.example", headers{w.token(w.user), other.Client().Transport}}}
		w.URL = other.URL // only the helpers read it
		s := tools{t, w.connectWith(path, client, nil)}
		s.do("check_balance", nil)
	}
	w.Close()
}

type renamed struct {
	host string
	base http.RoundTripper
}

func (r renamed) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Host = r.host
	return r.base.RoundTrip(req)
}

func TestWaitReturnsWhenHiringsEnd(t *testing.T) {
	t.Parallel()
	for _, path := range []string{streamable, hirerSSE} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, agrentingtest.WithoutRateLimits())
				defer w.Close()
				var progress []string
				s := tools{t, w.connectWith(path, &http.Client{Transport: headers{w.token(w.user), w.Transport()}}, &mcp.ClientOptions{
					ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
						progress = append(progress, fmt.Sprint(r.Params.Progress, "/", r.Params.Total))
					},
				})}
				defer func() { _ = s.Close() }()
				first := s.hire(w.quick)
				advance(4 * time.Second)
				second := s.hire(w.quick)
				began := time.Now()
				params := &mcp.CallToolParams{Name: "wait_for_hirings", Arguments: object{"hiring_ids": []string{first, second}}}
				params.SetProgressToken("p")
				result, err := s.CallTool(t.Context(), params)
				require.NoError(t, err)
				assert.Equal(t, true, sub(object{"result": result.StructuredContent}, "result")["all_ended"])
				assert.Equal(t, 10*time.Second, time.Since(began))
				synctest.Wait()
				assert.Equal(t, []string{"0/2", "1/2", "2/2"}, progress)

				began = time.Now()
				waited := s.do("wait_for_hirings", object{"hiring_ids": []string{first, s.hire(w.worker)}, "timeout_seconds": 2.1})
				assert.Equal(t, 2100*time.Millisecond, time.Since(began))
				assert.Equal(t, []any{false, true}, []any{waited["all_ended"], waited["timed_out"]})
				began = time.Now()
				s.do("wait_for_hirings", object{"hiring_ids": []string{s.hire(w.worker)}})
				assert.Equal(t, time.Minute, time.Since(began))
			})
		})
	}
}

// The credential was valid when the call arrived. The hiring ends after ten seconds.
func TestWaitOutlivesTheCredential(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*world) (header http.Header, end func()){
		"session expires": func(w *world) (http.Header, func()) {
			session, _ := w.NewSession(w.NewKey(w.quick.ID).Secret)
			return http.Header{"Authorization": {"Bearer " + session}}, func() {}
		},
		"key rotated": func(w *world) (http.Header, func()) {
			header := w.key(w.quick)
			return header, func() {
				rotated, body := w.send("POST", "/api/v1/auth/rotate-key", header, "{}")
				assert.Equal(w.t, 200, rotated.status, body)
			}
		},
	}
	for _, path := range []string{streamable, hirerSSE} {
		for name, credential := range ends {
			t.Run(path+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, agrentingtest.WithSessionTTL(5*time.Second))
					defer w.Close()
					user := tools{t, w.connect(streamable, w.token(w.user))}
					defer func() { _ = user.Close() }()
					header, end := credential(w)
					s := w.connect(path, header)
					defer func() { _ = s.Close() }()
					id := user.hire(w.quick)
					type outcome struct {
						result object
						err    error
					}
					waited := make(chan outcome, 1)
					go func() {
						result, err := tools{t, s}.try(t.Context(), "wait_for_hirings", object{"hiring_ids": []string{id}})
						waited <- outcome{result, err}
					}()
					advance(3 * time.Second)
					end()
					got := <-waited
					require.NoError(t, got.err)
					assert.Equal(t, true, got.result["all_ended"])
					_, err := tools{t, s}.try(t.Context(), "wait_for_hirings", object{"hiring_ids": []string{id}})
					require.Error(t, err, "the next call needs a live credential")
				})
			})
		}
	}
}

// advance lets virtual time pass; it is for bubbles only.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where tests wait

func TestIdleSessionsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		header := w.token(w.user)
		began, _ := w.send("POST", streamable, header, initialize)
		header["Mcp-Session-Id"] = began.header["Mcp-Session-Id"]
		for range 3 {
			advance(mcptest.SessionTimeout - time.Second)
			alive, _ := w.send("POST", streamable, header, ping)
			require.Equal(t, 200, alive.status)
		}
		advance(mcptest.SessionTimeout + time.Second)
		ended, body := w.send("POST", streamable, header, ping)
		assert.Equal(t, 404, ended.status)
		assert.Contains(t, body, `"message":"MCP session not found"`)
	})
}
