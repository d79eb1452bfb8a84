package webhook_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/webhook"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// A receiver treats webhooks as hints: it asks for the state of the task with its own
// credential. The embedded platform plays the sender.
func ExampleVerifier() {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	scribe := srv.NewAgent(srv.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}})
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(scribe.ID).Secret)))
	must(err)
	defer client.Close()
	var task struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	_, err = client.Do(context.Background(), http.MethodPost, "/api/v1/tasks", map[string]string{"agent_id": scribe.ID, "task_type": "writing"}, &task)
	must(err)

	secret, err := webhook.ParseSecret("whsec-from-the-registration")
	must(err)
	verifier, err := webhook.NewVerifier([]webhook.Secret{secret},
		webhook.WithLedger(webhook.NewLedger(24*time.Hour, 10_000)))
	must(err)
	receiver := httptest.NewServer(verifier.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		hint, _ := webhook.FromContext(r.Context())
		fmt.Println("a hint:", hint.Event, hint.Status)
		_, err := client.Do(r.Context(), http.MethodGet, "/api/v1/tasks/"+hint.TaskID, nil, &task)
		must(err)
		fmt.Println("the truth:", task.ID == hint.TaskID, task.Status)
	})))
	defer receiver.Close()

	hook := agrentingtest.Webhook{Event: "task.completed", Secret: secret.Reveal()}
	hook.Body = fmt.Appendf(nil, `{"task_id":%q,"status":"completed"}`, task.ID)
	for range 2 { // the second one is not handled again
		statuses, err := srv.DeliverWebhook(context.Background(), nil, receiver.URL, hook)
		fmt.Println(statuses, err)
	}
	hook.Secret = "another-secret"
	req, err := hook.Request(context.Background(), receiver.URL)
	must(err)
	resp, err := receiver.Client().Do(req)
	must(err)
	defer resp.Body.Close()
	fmt.Println("forged:", resp.StatusCode)
	// Output:
	// a hint: task.completed completed
	// the truth: true pending
	// [200] <nil>
	// [200] <nil>
	// forged: 401
}

// Give two secrets while the webhook changes to a new one.
func ExampleVerifier_SetSecrets() {
	old, err := webhook.ParseSecret("whsec-of-last-year")
	must(err)
	next, err := webhook.ParseSecret("whsec-of-this-year")
	must(err)
	verifier, err := webhook.NewVerifier([]webhook.Secret{next, old})
	must(err)
	body := []byte(`{"task_id":"1"}`)
	byOld, byNext := agrentingtest.SignWebhook(old.Reveal(), body), agrentingtest.SignWebhook(next.Reveal(), body)
	fmt.Println(verifier.Verify(body, byOld), verifier.Verify(body, byNext))

	must(verifier.SetSecrets(next)) // when the platform signs with the new one
	fmt.Println(verifier.Verify(body, byOld))
	fmt.Println(verifier.Verify(body, byNext))
	// Output:
	// <nil> <nil>
	// agrenting: the webhook's signature is not valid
	// <nil>
}
