package agrentingtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// exchange exchanges a key for a session and returns the status and the token.
func exchange(client *http.Client, url, key string) (int, string) {
	req, err := http.NewRequest(http.MethodPost, url+"/api/v1/auth/authenticate", http.NoBody)
	if err != nil {
		panic(err)
	}
	req.Header.Set("X-Api-Key", key)
	resp, err := client.Do(req)
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct {
		Data struct {
			Token string `json:"session_token"`
		} `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		panic(err)
	}
	return resp.StatusCode, body.Data.Token
}

// send sends one request and returns the status and the body.
func send(client *http.Client, method, url, header, value string) (int, string) {
	req, err := http.NewRequest(method, url, http.NoBody)
	if err != nil {
		panic(err)
	}
	req.Header.Set(header, value)
	resp, err := client.Do(req)
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	return resp.StatusCode, string(body)
}

func Example() {
	srv := agrentingtest.NewServer()
	defer srv.Close()

	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe"})
	key := srv.NewKey(agent.ID)

	status, session := exchange(http.DefaultClient, srv.URL, key.Secret)
	fmt.Println("authenticate:", status)

	status, _ = send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/tasks", "Authorization", "Bearer "+session)
	fmt.Println("tasks:", status)

	for _, r := range srv.Requests() {
		fmt.Println(r.Method, r.Path, r.CredentialKind, r.Status)
	}
	// Output:
	// authenticate: 200
	// tasks: 200
	// POST /api/v1/auth/authenticate api_key 200
	// GET /api/v1/tasks session 200
}

// A key that another process has rotated is rejected at once.
func ExampleServer_RevokeKey() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID)

	before, _ := exchange(http.DefaultClient, srv.URL, key.Secret)
	srv.RevokeKey(key.ID)
	after, _ := exchange(http.DefaultClient, srv.URL, key.Secret)
	fmt.Println(before, after, srv.KeyAlive(key.Secret))
	// Output: 200 401 false
}

func ExampleServer_Fault() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	srv.Fault("GET /api/v1/health",
		agrentingtest.Status(503, "").Times(2),
		agrentingtest.MalformedJSON(),
	)
	for range 4 {
		status, body := send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/health", "Accept", "application/json")
		fmt.Println(status, json.Valid([]byte(body)))
	}
	// Output:
	// 503 true
	// 503 true
	// 200 false
	// 200 true
}

// Some responses are a gateway's page, as from a firewall that blocks requests at
// random.
func ExampleFault_Share() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	srv.Fault("GET *", agrentingtest.Page(401).Share(0.1))
	pages := 0
	for range 100 {
		status, _ := send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/health", "Accept", "application/json")
		if status == http.StatusUnauthorized {
			pages++
		}
	}
	fmt.Println(pages > 0, pages < 30, srv.Stats().Unauthorized == int64(pages))
	// Output: true true true
}

// The gateway fails after the platform has rotated the key, so that the new key
// is lost.
func ExampleFault_AfterServing() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
	srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.Page(502).AfterServing())

	status, _ := send(http.DefaultClient, http.MethodPost, srv.URL+"/api/v1/auth/rotate-key", "X-API-Key", key.Secret)
	fmt.Println(status, srv.KeyAlive(key.Secret))
	// Output: 502 false
}

// Every node learns of a new session after an hour.
func ExampleWithNodes() {
	srv := agrentingtest.NewServer(agrentingtest.WithNodes(agrentingtest.Nodes{SessionLag: time.Hour}))
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID)

	issued, session := exchange(http.DefaultClient, srv.URL, key.Secret)
	used, _ := send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/tasks", "Authorization", "Bearer "+session)
	fmt.Println(issued, used)
	// Output: 200 401
}

// Your own routes get the caller from PrincipalFrom.
func ExampleServer_Handle() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	srv.Handle("GET /api/v1/greeting", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, _ := agrentingtest.PrincipalFrom(r.Context())
		_, _ = fmt.Fprintf(w, "hello, %s", p)
	}))
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{ID: "6f2d2c5e-1c58-4b0e-9d7a-0a4f1d6b7c11"})
	key := srv.NewKey(agent.ID)

	status, body := send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/greeting", "X-API-Key", key.Secret)
	fmt.Println(status, body)
	status, _ = send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/greeting", "X-API-Key", "guess")
	fmt.Println(status)
	// Output:
	// 200 hello, agent:6f2d2c5e-1c58-4b0e-9d7a-0a4f1d6b7c11
	// 401
}

// The eleventh exchange of a minute locks the address out for five.
func ExampleNewServer_lockout() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
	for range 10 {
		exchange(http.DefaultClient, srv.URL, key.Secret)
	}
	status, _ := exchange(http.DefaultClient, srv.URL, key.Secret)
	fmt.Println(status, srv.Stats().SessionsIssued)
	// Output: 429 10
}

// Nothing listens on the network. The server can be reached only through the
// transport.
func ExampleInMemory() {
	srv := agrentingtest.NewServer(agrentingtest.InMemory())
	defer srv.Close()
	client := &http.Client{Transport: srv.Transport()}
	status, _ := send(client, http.MethodGet, srv.URL+"/api/v1/health", "Accept", "application/json")
	fmt.Println(status)
	// Output: 200
}

func ExampleServer_Stats() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{})
	key := srv.NewKey(agent.ID)

	// The key field is "api_key" unless WithRotateKeyField says otherwise.
	_, body := send(http.DefaultClient, http.MethodPost, srv.URL+"/api/v1/auth/rotate-key", "X-API-Key", key.Secret)
	var answer struct {
		Data struct {
			Key string `json:"api_key"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		panic(err)
	}
	stats := srv.Stats()
	fmt.Println("rotations:", stats.Rotations, "revoked:", stats.KeysRevoked)
	fmt.Println("old alive:", srv.KeyAlive(key.Secret), "new alive:", srv.KeyAlive(answer.Data.Key))
	// Output:
	// rotations: 1 revoked: 1
	// old alive: false new alive: true
}

// A receiver of webhooks, mounted on the platform that sends them.
func ExampleServer_OnChange() {
	srv := agrentingtest.NewServer(agrentingtest.InMemory())
	defer srv.Close()
	scribe := srv.NewAgent(srv.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe"})
	key := srv.NewKey(scribe.ID).Secret
	client := &http.Client{Transport: srv.Transport()}
	post := func(path, body string) string {
		req, err := http.NewRequest(http.MethodPost, srv.URL+path, strings.NewReader(body))
		if err != nil {
			panic(err)
		}
		req.Header.Set("X-Api-Key", key)
		resp, err := client.Do(req)
		if err != nil {
			panic(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var answer struct {
			Data struct {
				ID string `json:"id"`
			} `json:"data"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			panic(err)
		}
		return answer.Data.ID
	}

	received := make(chan string)
	srv.HandlePublic("POST /hook", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		received <- r.Header.Get("X-Webhook-Event")
	}))
	post("/api/v1/webhooks", `{"url":"`+srv.URL+`/hook","events":["task.completed"]}`)
	stop := srv.OnChange(func(c agrentingtest.Change) { fmt.Println("change:", c.Event, c.Status) })
	defer stop()
	task := post("/api/v1/tasks", `{"provider_agent_id":"`+scribe.ID+`","capability":"writing","input":"a poem"}`)
	srv.CompleteTask(task, "Roses are red")
	fmt.Println("webhook:", <-received)
	// Output:
	// change: task.created pending
	// change: task.completed completed
	// webhook: task.completed
}

// A program in another language does the same with curl.
func ExampleWithControl() {
	srv := agrentingtest.NewServer(agrentingtest.WithControl())
	defer srv.Close()

	fault := strings.NewReader(`{"pattern": "GET *", "kind": "status", "status": 503}`)
	resp, err := http.Post(srv.URL+"/_sandbox/faults", "application/json", fault)
	if err != nil {
		panic(err)
	}
	_ = resp.Body.Close()
	fmt.Println(resp.StatusCode)
	for range 2 {
		status, _ := send(http.DefaultClient, http.MethodGet, srv.URL+"/api/v1/health", "Accept", "*/*")
		fmt.Println(status)
	}
	// Output:
	// 201
	// 503
	// 200
}

func ExampleServer_Report() {
	srv := agrentingtest.NewServer(agrentingtest.InMemory())
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	client := &http.Client{Transport: srv.Transport()}

	srv.RevokeKey(key.ID)
	send(client, http.MethodGet, srv.URL+"/api/v1/tasks", "X-Api-Key", key.Secret)
	send(client, http.MethodGet, srv.URL+"/api/v1/health?api_key="+key.Secret, "Accept", "*/*")

	report := srv.Report()
	for _, c := range report.Refused {
		fmt.Println(c.Status, c.Kind, c.State, c.Route)
	}
	for _, c := range report.Misplaced {
		fmt.Println(c.Kind, "in the", c.Place, "of", c.Route)
	}
	// Output:
	// 401 api_key revoked GET /api/v1/tasks
	// api_key in the query of GET /api/v1/health
}
