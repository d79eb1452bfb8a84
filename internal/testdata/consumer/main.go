// Command agent is an example of a third-party program that uses the SDK from a
// separate module. It is built outside the workspace, with the dependencies that
// a user gets, and with only the public packages. It runs against the embedded
// platform and prints "ok".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/webhook"
)

// Users must be able to implement these interfaces and functions, so each is
// written out here.
var (
	_ agrenting.CredentialSource = agrenting.CredentialSourceFunc(nil)
	_ agrenting.Refresher        = (*vault)(nil)
	_ agrenting.Store            = (*store)(nil)
	_ agrenting.Watcher          = (*store)(nil)
	_ webhook.Ledger             = (*ledger)(nil)
	_ http.RoundTripper          = (*agrenting.Transport)(nil)
	_ error                      = (*agrenting.APIError)(nil)
)

// vault is a source of credentials.
type vault struct{ key string }

func (v *vault) Credential(context.Context) (agrenting.Credential, error) {
	return agrenting.ParseCredential(v.key)
}

func (v *vault) Refresh(ctx context.Context, _ agrenting.Credential) (agrenting.Credential, error) {
	return v.Credential(ctx)
}

// store wraps another store, as one that counts or encrypts would.
type store struct {
	inner agrenting.Store
	saved atomic.Int64
}

func (s *store) Load(ctx context.Context, name string) (agrenting.Record, error) {
	return s.inner.Load(ctx, name)
}

func (s *store) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	s.saved.Add(1)
	return s.inner.Save(ctx, name, data, previous)
}

func (s *store) Watch(ctx context.Context, name string) iter.Seq2[agrenting.Record, error] {
	if w, ok := s.inner.(agrenting.Watcher); ok {
		return w.Watch(ctx, name)
	}
	return func(yield func(agrenting.Record, error) bool) {
		yield(agrenting.Record{}, errors.New("the store cannot be watched"))
	}
}

// ledger does not remember anything.
type ledger struct{}

func (ledger) Begin(context.Context, string) (webhook.State, error) {
	return webhook.StateNew, nil
}
func (ledger) End(context.Context, string, bool) error { return nil }

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // there is nothing left to cancel
	}
}

func run(ctx context.Context, out io.Writer) error {
	srv := agrentingtest.NewServer()
	defer srv.Close()
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}})

	for _, step := range []struct {
		name string
		do   func(context.Context, *agrentingtest.Server, string) error
	}{
		{"a call", call},
		{"a session", session},
		{"a rotation", rotate},
		{"a webhook", receive},
		{"a socket", socket},
	} {
		if err := step.do(ctx, srv, agent.ID); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	_, err := fmt.Fprintln(out, "ok")
	return err
}

func call(ctx context.Context, srv *agrentingtest.Server, agentID string) error {
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredentialSource(&vault{key: srv.NewKey(agentID).Secret}),
		agrenting.WithLogger(slog.New(slog.DiscardHandler)),
		agrenting.WithObserver(func(agrenting.Event) {}),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for agent, err := range client.Agents.List(ctx) {
		if err != nil {
			return err
		}
		if agent.ID != agentID {
			return fmt.Errorf("agent %s is not the one that was made", agent.ID)
		}
	}
	resp, err := client.Do(ctx, http.MethodGet, "/api/v1/agents/00000000-0000-4000-8000-000000000000", nil, nil)
	if api, ok := errors.AsType[*agrenting.APIError](err); !ok || !errors.Is(err, agrenting.ErrNotFound) || api.StatusCode != resp.StatusCode {
		return fmt.Errorf("an agent that is not there: %w", err)
	}
	return nil
}

func session(ctx context.Context, srv *agrentingtest.Server, agentID string) error {
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(agentID).Secret)),
		agrenting.WithSession(),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Do(ctx, http.MethodGet, "/api/v1/agents", nil, nil); err != nil {
		return err
	}
	if s := client.Status(); s.Kind != agrenting.KindSession || s.State != agrenting.StateReady {
		return fmt.Errorf("a %s is %s", s.Kind, s.State)
	}
	return nil
}

func rotate(ctx context.Context, srv *agrentingtest.Server, agentID string) error {
	first := agrenting.APIKey(srv.NewKey(agentID).Secret)
	keys := &store{inner: agrenting.MemoryStore()}
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithStore(keys),
		agrenting.WithCredential(first),
		agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1}),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Rotate(ctx); err != nil {
		return err
	}
	now, err := client.Credential(ctx)
	if err != nil {
		return err
	}
	if now.Equal(first) || keys.saved.Load() == 0 {
		return errors.New("the key is still the first")
	}
	return nil
}

func receive(ctx context.Context, srv *agrentingtest.Server, _ string) error {
	secret, err := webhook.ParseSecret("whsec-made-up-for-this")
	if err != nil {
		return err
	}
	verifier, err := webhook.NewVerifier([]webhook.Secret{secret}, webhook.WithLedger(ledger{}))
	if err != nil {
		return err
	}
	var got *webhook.Delivery
	client := &http.Client{Transport: local{verifier.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got, _ = webhook.FromContext(r.Context())
	}))}}
	hook := agrentingtest.Webhook{Event: "task.completed", TaskID: "t-1", Secret: secret.Reveal()}
	if _, err := srv.DeliverWebhook(ctx, client, "http://agent.example/hook", hook); err != nil {
		return err
	}
	if got == nil || got.TaskID != "t-1" {
		return errors.New("it did not arrive")
	}
	return nil
}

// local handles requests with a handler.
type local struct{ handler http.Handler }

func (l local) RoundTrip(req *http.Request) (*http.Response, error) {
	w := &answer{header: http.Header{}, status: http.StatusOK}
	l.handler.ServeHTTP(w, req)
	return &http.Response{StatusCode: w.status, Header: w.header, Body: http.NoBody, Request: req}, nil
}

type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return len(b), nil }

func socket(ctx context.Context, srv *agrentingtest.Server, agentID string) error {
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(),
		agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(srv.NewKey(agentID).Secret)),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/socket/agent/websocket", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.SocketHTTPClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.Request.URL.RawQuery != "" {
		return errors.New("it shows its credential")
	}
	return nil
}
