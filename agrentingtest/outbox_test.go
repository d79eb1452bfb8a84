package agrentingtest_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/webhook"
)

const hooksPath = "/api/v1/webhooks"

// receivers receive all deliveries of a server. A path has the responses of its receiver,
// one letter for each try. The last one is repeated.
//
//	o  200
//	x  500
//	r  a redirect to /elsewhere/o
//	b  a broken connection
//	s  no response until the sender gives up
type receivers struct {
	mu    sync.Mutex
	tries map[string]int
	got   []posted
	ended int // tries without a response
}

type posted struct {
	*http.Request
	body string
	at   time.Time
}

func (r *receivers) RoundTrip(req *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	answer := r.record(req, string(b))
	status := map[byte]int{'o': 200, 'x': 500, 'r': 307}[answer]
	switch answer {
	case 's':
		<-req.Context().Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended++
		return nil, req.Context().Err()
	case 'b':
		return nil, errors.New("connection reset")
	}
	return &http.Response{
		StatusCode: status, Header: http.Header{"Location": {"https://hooks.test/elsewhere/o"}}, Body: http.NoBody, Request: req,
	}, nil
}

func (r *receivers) record(req *http.Request, body string) byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, posted{req, body, time.Now()})
	path := req.URL.Path
	answers := path[strings.LastIndex(path, "/")+1:]
	if r.tries == nil {
		r.tries = map[string]int{}
	}
	r.tries[path]++
	return answers[min(r.tries[path], len(answers))-1]
}

// take returns and removes the deliveries so far.
func (r *receivers) take() []posted {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}

// events returns and removes the path and event of the deliveries so far.
func (r *receivers) events() (events []string) {
	for _, p := range r.take() {
		events = append(events, p.URL.Path+" "+p.Header.Get("X-Webhook-Event"))
	}
	return events
}

// register registers a webhook in the form of the official client, and returns its ID.
func (m *market) register(c caller, path string, events ...string) string {
	m.t.Helper()
	made := c.post(hooksPath, `{"callback_url":"https://hooks.test`+path+`","event_types":`+list(events)+`}`)
	require.Equal(m.t, 201, made.status, made.raw)
	return made.text("id")
}

func list(items []string) string {
	b, _ := json.Marshal(items) // strings encode
	return string(b)
}

// inBubble runs a test of deliveries on virtual time.
func inBubble(t *testing.T, test func(*market, *receivers), opts ...agrentingtest.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &receivers{}
		test(newMarketOf(t, agrentingtest.AgentConfig{BasePrice: "2.50"}, append(opts, agrentingtest.WithWebhookTransport(r))...), r)
	})
}

func TestWebhook_isDeliveredToRegistrationsOfBothForms(t *testing.T) {
	t.Parallel()
	inBubble(t, func(m *market, r *receivers) {
		t := m.t
		begin := time.Now()
		b := m.asToken().post(hooksPath, `{"callback_url":"https://hooks.test/b/o","event_types":["task.created","task.completed"]}`)
		a := m.asToken().post(hooksPath, `{"url":"https://hooks.test/a/o","events":["task.completed","task.failed"],"secret":"whsec-not-a-real-one"}`)
		done, failed := m.newTask(m.asToken()), m.newTask(m.asToken())
		advance(time.Second)
		m.CompleteTask(idOf(done), map[string]any{"n": 1})
		m.FailTask(idOf(failed), "no ink")
		synctest.Wait()

		type message struct{ path, event, task, body string }
		created := func(id string) string {
			return fmt.Sprintf(`{"task_id":%q,"status":"pending","progress_percent":0,"progress_message":"created","created_at":%q}`,
				id, begin.UTC().Format(time.RFC3339Nano))
		}
		later := begin.Add(time.Second).UTC().Format(time.RFC3339Nano)
		completed := fmt.Sprintf(`{"task_id":%q,"status":"completed","output":"{\"n\":1}","progress_percent":100,"progress_message":"completed",`+
			`"completed_at":%q,"created_at":%q}`, idOf(done), later, later)
		want := map[string][]message{
			"/b/o": {
				{"/b/o", "task.created", idOf(done), created(idOf(done))},
				{"/b/o", "task.created", idOf(failed), created(idOf(failed))},
				{"/b/o", "task.completed", idOf(done), completed},
			},
			"/a/o": {
				{"/a/o", "task.completed", idOf(done), completed},
				{"/a/o", "task.failed", idOf(failed), fmt.Sprintf(`{"task_id":%q,"status":"failed","error_reason":"no ink","progress_percent":0,`+
					`"progress_message":"failed","created_at":%q}`, idOf(failed), later)},
			},
		}
		secrets := map[string]string{"/b/o": b.text("secret_key"), "/a/o": a.text("secret_key")}
		got := map[string][]message{}
		for _, p := range r.take() {
			got[p.URL.Path] = append(got[p.URL.Path], message{p.URL.Path, p.Header.Get("X-Webhook-Event"), p.Header.Get("X-Webhook-Task-Id"), p.body})
			assert.Equal(t, http.MethodPost, p.Method)
			secret, err := webhook.ParseSecret(secrets[p.URL.Path])
			require.NoError(t, err)
			verifier, err := webhook.NewVerifier([]webhook.Secret{secret})
			require.NoError(t, err)
			r := httptest.NewRequest(p.Method, p.URL.String(), strings.NewReader(p.body))
			r.Header = p.Header
			handled := httptest.NewRecorder()
			verifier.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				d, _ := webhook.FromContext(r.Context())
				assert.Equal(t, []any{p.Header.Get("X-Webhook-Task-Id"), true}, []any{d.TaskID, d.TaskIDSigned})
			})).ServeHTTP(handled, r)
			assert.Equal(t, 200, handled.Code)
		}
		for path, messages := range want {
			require.Len(t, got[path], len(messages), path)
			for i, w := range messages {
				g := got[path][i]
				assert.JSONEq(t, w.body, g.body)
				w.body, g.body = "", ""
				assert.Equal(t, w, g)
			}
		}
		assert.Equal(t, [2]int64{5, 0}, [2]int64{m.Stats().Deliveries, m.Stats().DeliveriesFailed})
		assert.Equal(t, []string{later, later}, m.asToken().get(hooksPath).names("last_delivery_at"))
	})
}

func TestWebhook_eventsAreThoseOfTheForm(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	for body, status := range map[string]int{
		`{"url":"https://a.test","events":["task.disputed","payment.confirmed","payment.deposited","withdrawal.processed","agent.status_changed"]}`: 201,
		`{"callback_url":"https://a.test","event_types":["task.claimed","task.in_progress","task.cancelled"]}`:                                      201,
		`{"url":"https://a.test","events":["task.created"]}`:                                                                                        422,
		`{"callback_url":"https://a.test","event_types":["task.failed","payment.confirmed"]}`:                                                       422,
		`{"callback_url":"https://a.test","event_types":["task.complete"]}`:                                                                         422,
	} {
		a := m.asToken().post(hooksPath, body)
		assert.Equal(t, status, a.status, body)
		if status == 422 {
			assert.Contains(t, a.env.Errors[0].Message, "must be one of task.c")
		}
	}
}

// Each party gets only the events of its tasks and money.
func TestWebhook_goesToThePartiesOnly(t *testing.T) {
	t.Parallel()
	documented := list([]string{"task.completed", "payment.confirmed", "payment.deposited", "withdrawal.processed", "agent.status_changed"})
	inBubble(t, func(m *market, r *receivers) {
		t := m.t
		eve := m.NewAgent(nil, agrentingtest.AgentConfig{Name: "Eve"})
		bob := m.bearer(m.NewToken(m.provider.OwnerID, agrentingtest.TokenConfig{}).Secret)
		for path, c := range map[string]caller{
			"user": m.asToken(), "agent": m.asKey(), "asagent": m.asToken().and("X-Agent-ID", m.agent.ID),
			"provider": m.worker, "owner": bob, "stranger": m.stranger, "eve": m.caller.key(m.NewKey(eve.ID).Secret),
		} {
			made := c.post(hooksPath, `{"url":"https://hooks.test/`+path+`/o","events":`+documented+`}`)
			require.Equal(t, 201, made.status, made.raw)
		}
		check := func(event string, paths ...string) {
			t.Helper()
			synctest.Wait()
			var want []string
			for _, p := range paths {
				want = append(want, "/"+p+"/o "+event)
			}
			assert.ElementsMatch(t, want, r.events())
		}
		at := m.newTask(m.asToken())
		check("task.created")
		m.CompleteTask(idOf(at), "done")
		check("task.completed", "user", "provider", "owner")
		at = m.newTask(m.asKey())
		m.asKey().post(at+"/payments", "")
		check("payment.confirmed", "user", "agent", "asagent", "provider", "owner")
		m.CompleteTask(idOf(at), "done")
		check("task.completed", "user", "agent", "asagent", "provider", "owner")
		m.asToken().post("/api/v1/ledger/deposit", `{"amount":"1"}`)
		synctest.Wait()
		got := r.take()
		require.Len(t, got, 1)
		var body map[string]any
		require.NoError(t, json.Unmarshal([]byte(got[0].body), &body))
		assert.Equal(t, []any{"1.00", "USD", "completed", nil}, []any{body["amount"], body["currency"], body["status"], body["task_id"]})
		assert.NotEmpty(t, body["payment_id"])
		assert.NotContains(t, got[0].Header, "X-Webhook-Task-Id")
		m.asKey().post("/api/v1/ledger/withdraw", `{"amount":"1"}`)
		check("withdrawal.processed", "user", "agent", "asagent")
		m.SetAgentStatus(m.provider.ID, agrentingtest.AgentInactive)
		check("agent.status_changed", "provider", "owner")
		m.SetAgentStatus(m.provider.ID, agrentingtest.AgentSuspended)
		check("agent.status_changed", "owner")
		m.SetAgentStatus(m.provider.ID, agrentingtest.AgentActive)
		check("agent.status_changed", "provider", "owner")
	})
}

func TestDelivery_isRetriedInOrder(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	inBubble(t, func(m *market, r *receivers) {
		t := m.t
		m.register(m.asToken(), "/xxrxbo", "task.created", "task.cancelled")
		at := m.newTask(m.asToken())
		advance(10 * time.Second)
		m.asToken().post(at+"/cancel", "")
		advance(10 * time.Second)
		synctest.Wait()
		var events []string
		var times []time.Duration
		got := r.take()
		for _, p := range got {
			events = append(events, strings.TrimPrefix(p.Header.Get("X-Webhook-Event"), "task."))
			times = append(times, p.at.Sub(got[0].at)/time.Second)
		}
		assert.Equal(t, []string{"created", "created", "created", "created", "created", "cancelled"}, events)
		assert.Equal(t, []time.Duration{0, 1, 3, 7, 15, 15}, times)
		for _, p := range got[:5] {
			assert.Equal(t, [2]string{got[0].body, got[0].Header.Get("X-Webhook-Signature")}, [2]string{p.body, p.Header.Get("X-Webhook-Signature")})
		}
		hook := m.asToken().get(hooksPath).items()[0]
		assert.Equal(t, []any{float64(1), got[5].at.UTC().Format(time.RFC3339Nano)}, []any{hook["failure_count"], hook["last_delivery_at"]})
		assert.Equal(t, [2]int64{1, 1}, [2]int64{m.Stats().Deliveries, m.Stats().DeliveriesFailed})
	}, agrentingtest.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	var line map[string]any
	require.NoError(t, json.Unmarshal(log.Bytes(), &line), "one line")
	assert.Equal(t, []any{"delivery failed", "task.created", "hooks.test", float64(5)},
		[]any{line["msg"], line["event"], line["receiver"], line["tries"]})
	assert.NotContains(t, log.String(), "/xxrxbo", "a path may be a secret")
}

func TestDelivery_endsWithContextOrServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers string
		end     func(m *market, hook string)
		tries   int
	}{
		"deletion between tries": {"x", func(m *market, hook string) { m.worker.del(hooksPath + "/" + hook) }, 2},
		"deletion during a try":  {"s", func(m *market, hook string) { m.worker.del(hooksPath + "/" + hook) }, 1},
		"suspension":             {"x", func(m *market, _ string) { m.SetAgentStatus(m.provider.ID, agrentingtest.AgentSuspended) }, 2},
		"Close between tries":    {"x", func(m *market, _ string) { m.Close() }, 2},
		"Close during a try":     {"s", func(m *market, _ string) { m.Close() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(m *market, r *receivers) {
				t := m.t
				hook := m.register(m.worker, "/"+c.answers, "task.created", "task.completed")
				at := m.newTask(m.asToken())
				m.CompleteTask(idOf(at), "done")
				advance(2 * time.Second)
				begin := time.Now()
				c.end(m, hook)
				assert.Zero(t, time.Since(begin), "nothing waits for the receiver")
				synctest.Wait()
				r.mu.Lock()
				assert.Equal(t, strings.Count(c.answers, "s"), r.ended, "the try in progress is canceled")
				r.mu.Unlock()
				advance(time.Minute)
				synctest.Wait()
				var want []string
				for range c.tries {
					want = append(want, "/"+c.answers+" task.created")
				}
				assert.Equal(t, want, r.events())
				assert.Equal(t, [2]int64{}, [2]int64{m.Stats().Deliveries, m.Stats().DeliveriesFailed})
			})
		})
	}
}

func TestDelivery_slowReceiverDelaysOnlyItself(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	inBubble(t, func(m *market, r *receivers) {
		t := m.t
		m.register(m.asToken(), "/s", "task.created")
		m.register(m.asToken(), "/o", "task.created")
		begin := time.Now()
		const waiting = 100 // the documented bound
		for range 1 + waiting + 3 {
			m.newTask(m.asToken())
			synctest.Wait()
		}
		count := map[string]int{}
		for _, e := range r.events() {
			count[e]++
		}
		assert.Equal(t, map[string]int{"/s task.created": 1, "/o task.created": 1 + waiting + 3}, count)
		assert.Zero(t, time.Since(begin))
		assert.Equal(t, []string{"3", "0"}, m.asToken().get(hooksPath).names("failure_count"))
		advance(2 * time.Hour) // 65 s for each
		count = map[string]int{}
		for _, e := range r.events() {
			count[e]++
		}
		assert.Equal(t, map[string]int{"/s task.created": 5*(1+waiting) - 1}, count)
	}, agrentingtest.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	assert.Contains(t, log.String(), `"msg":"deliveries lost because too many wait","lost":3`)
}

// Without a transport, deliveries reach only this machine.
func TestDelivery_reachesOnlyThisMachine(t *testing.T) {
	t.Parallel()
	got := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.URL.Path
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	t.Cleanup(receiver.Close)
	log := make(lines, 10)
	srv := agrentingtest.NewServer(agrentingtest.WithLogger(slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	t.Cleanup(srv.Close)
	ada := srv.NewUser("Ada")
	c := newCaller(t, srv).bearer(srv.NewToken(ada.ID, agrentingtest.TokenConfig{}).Secret)
	hire := func(callback string) {
		a := srv.NewAgent(ada, agrentingtest.AgentConfig{Metadata: map[string]any{"callback_url": callback, "callback_auth_header": "Bearer not-a-real-one"}})
		made := c.post("/api/v1/agents/"+a.ID+"/hire", `{"task_description":"x","capability_requested":"x","price":"1"}`)
		require.Equal(t, 201, made.status, made.raw)
	}
	hire(receiver.URL + "/hook")
	assert.Equal(t, "/hook", <-got)
	for _, callback := range []string{"http://169.254.169.254/latest", "http://127.0.0.1.example.org/", "file:///etc/passwd", "/hook", "http://[::2]/"} {
		hire(callback)
		assert.Contains(t, string(<-log), "deliveries go to https URLs, and to http URLs of a loopback host", callback)
	}
	for _, callback := range []string{"https://worker.example/", "https://10.0.0.1/"} {
		hire(callback)
		assert.Contains(t, string(<-log), "deliveries go to loopback hosts only; WithWebhookTransport changes that", callback)
	}
	assert.Equal(t, int64(7), srv.Stats().DeliveriesFailed)
	srv.Close() // ends the tries after the redirect
	receiver.Close()
	close(got)
	for path := range got {
		assert.Equal(t, "/hook", path, "redirects are not followed")
	}
}

// lines are those of a log.
type lines chan []byte

func (l lines) Write(p []byte) (int, error) {
	l <- bytes.Clone(p)
	return len(p), nil
}

// dispatch is a hire in the form that a published worker reads.
type dispatch struct {
	Type         string `json:"type"`
	Hiring       string `json:"hiring_id"`
	ID           string `json:"dispatch_id"`
	Attempt      int    `json:"trace_attempt"`
	SystemPrompt string `json:"system_prompt"`
	Description  string `json:"task_description"`
	Callback     string `json:"callback"`
	Task         struct {
		Description string `json:"description"`
	} `json:"task"`

	authorization string
}

// The worker responds with 202, fails the first attempt, and sends the result of the
// second attempt to the callback with its key.
func TestHire_isSentToTheWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		worker := m.NewAgent(m.NewUser("Carol"), agrentingtest.AgentConfig{Name: "Worker", Metadata: map[string]any{
			"callback_url": m.URL + "/work", "callback_auth_header": "Bearer not-a-real-one", "system_prompt": "Be brief.",
		}})
		key := m.caller.key(m.NewKey(worker.ID).Secret)
		dispatches := make(chan dispatch, 10)
		m.HandlePublic("POST /work", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			d := dispatch{authorization: r.Header.Get("Authorization")}
			assert.NoError(t, json.NewDecoder(r.Body).Decode(&d))
			assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
			w.WriteHeader(http.StatusAccepted)
			dispatches <- d
		}))
		made := m.asToken().post("/api/v1/agents/"+worker.ID+"/hire", `{"task_description":"write","capability_requested":"x","price":"1"}`)
		require.Equal(t, 201, made.status, made.raw)
		at := hiringsPath + "/" + fmt.Sprint(object(made.object()["hiring"])["id"])
		first := <-dispatches
		assert.Equal(t, first.ID, m.asToken().get(at).text("dispatch_id"))
		require.Equal(t, 200, key.post(at+"/failure", `{"reason":"timeout"}`).status)
		require.Equal(t, 200, m.asToken().post(at+"/retry", "").status)
		second := <-dispatches
		for i, d := range []dispatch{first, second} {
			want := dispatch{
				Type: "hiring_task", Hiring: idOf(at), ID: d.ID, Attempt: i + 1, SystemPrompt: "Be brief.", Description: "write",
				Callback: m.URL + at + "/result", authorization: "Bearer not-a-real-one",
			}
			want.Task.Description = "write"
			assert.Equal(t, want, d)
		}
		result := func(d dispatch) answer {
			return key.post(strings.TrimPrefix(second.Callback, m.URL),
				fmt.Sprintf(`{"output":{"summary":"done"},"dispatch_id":%q,"trace_attempt":%d}`, d.ID, d.Attempt))
		}
		outdated := result(first)
		assert.Equal(t, []any{422, "dispatch_id"}, []any{outdated.status, outdated.field()})
		assert.Equal(t, "queued", m.asToken().get(at).text("status"))
		assert.Equal(t, 200, result(second).status)
		assert.Equal(t, "completed", m.asToken().get(at).text("status"))
		synctest.Wait()
		assert.Equal(t, int64(2), m.Stats().Deliveries)
		assert.Zero(t, m.Count("HEAD *"), "the platform does not ask for /health before")
		assert.Empty(t, dispatches)
	})
}

func TestHire_isSentWhileItIsOpen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		act  func(m *market, at string)
		want []time.Duration // seconds
	}{
		"nothing":      {func(*market, string) {}, []time.Duration{0, 1, 3, 7, 15}},
		"cancellation": {func(m *market, at string) { m.asToken().post(at+"/cancel", "") }, []time.Duration{0, 1}},
		"result":       {func(m *market, at string) { m.worker.post(at+"/result", `{"output":"x"}`) }, []time.Duration{0, 1}},
		"ban":          {func(m *market, _ string) { m.SetAgentStatus(m.provider.ID, agrentingtest.AgentBanned) }, []time.Duration{0, 1}},
		"retry": {func(m *market, at string) {
			hiringActions["failure"](m, at)
			require.Equal(m.t, 200, hiringActions["retry"](m, at).status)
		}, []time.Duration{0, 1, 3, 4, 6, 10, 18}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(m *market, r *receivers) {
				t := m.t
				patched := m.worker.call(http.MethodPatch, "/api/v1/agents/"+m.provider.ID, `{"agent":{"metadata":{"callback_url":"https://worker.test/x"}}}`)
				require.Equal(t, 200, patched.status, patched.raw)
				at := m.newHiring()
				advance(2 * time.Second)
				c.act(m, at)
				advance(time.Minute)
				got := r.take()
				var times []time.Duration
				for _, p := range got {
					times = append(times, p.at.Sub(got[0].at)/time.Second)
				}
				assert.Equal(t, c.want, times)
				if name == "nothing" {
					assert.Contains(t, m.worker.get(hiringsPath+"/pending").raw, idOf(at), "the worker can still ask for it")
				}
			})
		})
	}
}

func TestHire_withMockResultIsNotSent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(m *market, r *receivers) {
		t := m.t
		metadata := map[string]any{"callback_url": "https://worker.test/o"}
		for _, cfg := range []agrentingtest.AgentConfig{{Sandbox: true}, {MockAfter: time.Second}, {}} {
			cfg.Metadata = metadata
			a := m.NewAgent(m.user, cfg)
			require.Equal(t, 201, m.asToken().post("/api/v1/agents/"+a.ID+"/hire", `{"task_description":"x","capability_requested":"x","price":"1"}`).status)
		}
		advance(time.Minute)
		assert.Len(t, r.take(), 1, "the hire of the agent without a mock result")
	})
}

func TestHire_ofInactiveAgentIsNotRetried(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	at := m.newHiring()
	hiringActions["failure"](m, at)
	m.SetAgentStatus(m.provider.ID, agrentingtest.AgentInactive)
	a := hiringActions["retry"](m, at)
	assert.Equal(t, []any{503, agrentingtest.CodeAgentUnavailable}, []any{a.status, a.code()})
}

func TestCallbackCredentialIsShownToManagersOnly(t *testing.T) {
	t.Parallel()
	m := newMarket(t)
	const secret = "Bearer not-a-real-one"
	a := m.NewAgent(m.user, agrentingtest.AgentConfig{Name: "Worker", Metadata: map[string]any{
		"callback_url": "https://worker.test/o", "callback_auth_header": secret,
	}})
	at := "/api/v1/agents/" + a.ID
	for name, c := range map[string]struct {
		answer
		shown bool
	}{
		"owner":     {m.asToken().get(at), true},
		"itself":    {m.caller.key(m.NewKey(a.ID).Secret).get(at), true},
		"owner's":   {m.asToken().get("/api/v1/agents/mine"), true},
		"patch":     {m.asToken().call(http.MethodPatch, at, `{"agent":{"description":"works"}}`), true},
		"anonymous": {m.with().get(at), false},
		"stranger":  {m.stranger.get(at), false},
		"list":      {m.stranger.get("/api/v1/agents"), false},
		"discover":  {m.asToken().get("/api/v1/agents/discover"), false},
	} {
		assert.Contains(t, c.raw, "https://worker.test/o", name)
		assert.Equal(t, c.shown, strings.Contains(c.raw, secret), cmp.Or(name, c.raw))
	}
}

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// JSON can spell the same name in several ways. The member that is used for a hire is
// also the one that is hidden.
func TestCallbackCredentialIsHiddenInAnySpelling(t *testing.T) {
	t.Parallel()
	for name, metadata := range map[string]string{
		"escaped":       `{"callback_url":"https://worker.test/o","callback_auth_heade\u0072":"Bearer used"}`,
		"all escaped":   `{"callback_url":"https://worker.test/o","\u0063allback\u005fauth_header":"Bearer used"}`,
		"twice":         `{"callback_url":"https://worker.test/o","callback_auth_header":"Bearer first","callback_auth_header":"Bearer used"}`,
		"twice escaped": `{"callback_url":"https://worker.test/o","callback_auth_header":"Bearer first","callback_auth_heade\u0072":"Bearer used"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := make(chan string, 1)
			m := newMarket(t, agrentingtest.WithWebhookTransport(transportFunc(func(r *http.Request) (*http.Response, error) {
				sent <- r.Header.Get("Authorization")
				return &http.Response{StatusCode: http.StatusAccepted, Body: http.NoBody}, nil
			})))
			at := "/api/v1/agents/" + m.provider.ID
			patched := m.worker.call(http.MethodPatch, at, `{"agent":{"metadata":`+metadata+`}}`)
			require.Equal(t, 200, patched.status, patched.raw)
			assert.Equal(t, map[string]any{"callback_url": "https://worker.test/o", "callback_auth_header": "Bearer used"},
				patched.object()["metadata"], "the agent sees what is used")
			for _, a := range []answer{
				m.with().get(at), m.stranger.get(at), m.stranger.get("/api/v1/agents"), m.stranger.get("/api/v1/agents/discover"),
			} {
				assert.Contains(t, a.raw, "https://worker.test/o")
				assert.NotContains(t, a.raw, "Bearer")
			}
			m.newHiring()
			assert.Equal(t, "Bearer used", <-sent)
		})
	}
}

func TestCallbackCredentialMustFitIntoAHeader(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithoutRateLimits())
	at := "/api/v1/agents/" + w.agent.ID
	for name, c := range map[string]struct {
		value  string // in JSON
		status int
	}{
		"line break":   {`Bearer a\r\nX-Other: b`, 422},
		"line feed":    {`Bearer a\n`, 422},
		"null":         {`Bearer \u0000`, 422},
		"delete":       {`Bearer \u007f`, 422},
		"escape":       {`Bearer \u001b[0m`, 422},
		"tab":          {`Bearer\ta`, 200},
		"other script": {`Bearer ä`, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			metadata := `"metadata":{"callback_url":"https://worker.test/o","callback_auth_header":"` + c.value + `"}`
			patched := w.asKey().call(http.MethodPatch, at, `{"agent":{`+metadata+`}}`)
			assert.Equal(t, c.status, patched.status, patched.raw)
			made := w.with().post("/api/v1/agents/register",
				`{"agent":{"name":"A","did":"did:web:`+strings.ReplaceAll(name, " ", "-")+`","capabilities":["x"],"pricing_model":"fixed",`+metadata+`}}`)
			assert.Equal(t, c.status == 200, made.status == 201, made.raw)
			if c.status == 422 {
				for _, a := range []answer{patched, made} {
					assert.Equal(t, []any{422, "metadata.callback_auth_header"}, []any{a.status, a.field()}, a.raw)
					assert.Contains(t, a.raw, "must not have control characters")
					assert.NotContains(t, a.raw, "Bearer")
				}
			}
		})
	}
}
