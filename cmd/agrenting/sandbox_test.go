package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// logLines are the lines of a log.
type logLines chan string

func (l logLines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestSandboxDeliversAndLogsFailures(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.Equal(t, agrentingtest.SignWebhook("whsec-not-a-real-one", body), r.Header.Get("X-Webhook-Signature"))
		w.WriteHeader(http.StatusNoContent)
		got <- r.Header.Get("X-Webhook-Event")
	}))
	defer receiver.Close()
	log := make(logLines, 10)
	srv := agrentingtest.NewServer(deliveryOptions(&app{streams: streams{err: log}})...)
	defer srv.Close()
	user := srv.NewUser("Ada")
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Metadata: map[string]any{"callback_url": "ftp://127.0.0.1/"}})
	post := func(path, body string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := srv.Transport().RoundTrip(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		require.Equal(t, http.StatusCreated, resp.StatusCode)
	}
	post("/api/v1/webhooks", `{"url":"`+receiver.URL+`","events":["payment.deposited"],"secret":"whsec-not-a-real-one"}`)
	post("/api/v1/ledger/deposit", `{"amount":"1"}`)
	assert.Equal(t, "payment.deposited", <-got)
	post("/api/v1/agents/"+agent.ID+"/hire", `{"task_description":"x","capability_requested":"x","price":"1"}`)
	line := <-log
	srv.Close()
	assert.Empty(t, log, "one line")
	assert.Contains(t, line, `level=WARN msg="delivery failed" event=hiring_task`)
}
