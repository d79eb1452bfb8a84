package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// delivery is what a receiver gets.
type delivery struct {
	name   string // the event, or the type of a hire
	header http.Header
	body   []byte
}

// receiver is in the place of every receiver.
type receiver chan delivery

// RoundTrip implements http.RoundTripper.
func (r receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	defer func() { _ = req.Body.Close() }()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	name := req.Header.Get("X-Webhook-Event")
	if name == "" {
		var hire struct{ Type string }
		_ = json.Unmarshal(body, &hire) // the schema is checked later
		name = hire.Type
	}
	select {
	case r <- delivery{name: name, header: req.Header, body: body}:
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	return &http.Response{
		StatusCode: http.StatusAccepted, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody, Request: req,
	}, nil
}

var errHeader = errors.New("a header is not as described")

// checkDelivery compares a delivery with an operation of the section webhooks.
func checkDelivery(op *openapi3.Operation, d delivery) error {
	for _, p := range op.Parameters {
		value := d.header.Get(p.Value.Name)
		switch {
		case value == "" && p.Value.Required:
			return fmt.Errorf("%w: no %s", errHeader, p.Value.Name)
		case value == "":
			continue
		}
		if err := p.Value.Schema.Value.VisitJSON(value, openapi3.EnableJSONSchema2020()); err != nil {
			return fmt.Errorf("%w: %s %q: %w", errHeader, p.Value.Name, value, err)
		}
	}
	var body any
	if err := json.Unmarshal(d.body, &body); err != nil {
		return err
	}
	schema := op.RequestBody.Value.Content.Get(d.header.Get("Content-Type")).Schema.Value
	return schema.VisitJSON(body, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors())
}

// webhookOf returns what describes the delivery of an event.
func webhookOf(event string) string {
	switch {
	case event == "hiring_task":
		return "hiringTask"
	case strings.HasPrefix(event, "task."):
		return "taskEvent"
	default:
		return "accountEvent"
	}
}

func TestDeliveriesAreAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	doc := document(t)
	seen := map[*openapi3.Schema]bool{}
	for _, item := range doc.Webhooks {
		closeContent(item.Post.RequestBody.Value.Content, seen)
	}
	inbox := make(receiver)
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits(), agrentingtest.WithWebhookTransport(inbox))
	t.Cleanup(srv.Close)
	v := newWitness(t, srv.Transport())
	ada := srv.NewUser("Ada")
	scribe := srv.NewAgent(ada, agrentingtest.AgentConfig{
		Name: "Scribe", BasePrice: "2.50",
		Metadata: map[string]any{"callback_url": "https://scribe.example/hire", "callback_auth_header": "Bearer x", "system_prompt": "Write."},
	})
	srv.NewAgent(ada, agrentingtest.AgentConfig{Name: "Second"}) // so that Ada acts for neither
	token := srv.NewToken(ada.ID, agrentingtest.TokenConfig{Name: "all"}).Secret
	user := marketplaceCaller{t, v, srv.URL, [2]string{"Authorization", "Bearer " + token}}
	agent := marketplaceCaller{t, v, srv.URL, [2]string{"X-API-Key", srv.NewKey(scribe.ID).Secret}}
	user.send("POST", "/api/v1/webhooks", `{"url":"https://ada.example/a","events":["task.completed","payment.confirmed",`+
		`"payment.deposited","withdrawal.processed","agent.status_changed"]}`, "id")
	user.send("POST", "/api/v1/webhooks", `{"callback_url":"https://ada.example/b","event_types":["task.created","task.claimed",`+
		`"task.in_progress","task.completed","task.failed","task.cancelled"]}`, "id")

	ask := func() string {
		return user.send("POST", "/api/v1/tasks", `{"provider_agent_id":"`+scribe.ID+`","capability":"writing","input":"x"}`, "id")
	}
	completed, failed, cancelled := ask(), ask(), ask()
	user.send("POST", "/api/v1/tasks/"+completed+"/payments", "", "id")
	agent.send("POST", "/api/v1/tasks/"+completed+"/messages", `{"message":"hello"}`, "")
	srv.CompleteTask(completed, map[string]any{"words": 3})
	srv.FailTask(failed, "it did not work")
	user.send("POST", "/api/v1/tasks/"+cancelled+"/cancel", "", "")
	user.send("POST", "/api/v1/ledger/deposit", `{"amount":"5"}`, "")
	user.send("POST", "/api/v1/ledger/withdraw", `{"amount":"5"}`, "")
	user.send("POST", "/api/v1/agents/"+scribe.ID+"/hire", `{"task_description":"d","capability_requested":"writing","price":"8.50"}`, "")
	srv.SetAgentStatus(scribe.ID, agrentingtest.AgentInactive)

	missing := []string{
		"agent.status_changed", "hiring_task", "payment.confirmed", "payment.deposited", "task.cancelled", "task.claimed",
		"task.completed", "task.created", "task.failed", "task.in_progress", "withdrawal.processed",
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(missing) > 0 {
		select {
		case d := <-inbox:
			require.NoError(t, checkDelivery(doc.Webhooks[webhookOf(d.name)].Post, d), "%s: %s", d.name, d.body)
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == d.name })
		case <-ctx.Done():
			t.Fatalf("not delivered: %s", missing)
		}
	}
	v.verdict(t)
}
