package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/agrenting/agrenting-go"
)

// realPlatform uses the platform and the credential from the environment,
// because the variable reason is set. It only reads.
func realPlatform(ctx context.Context, p *printer, lookupEnv lookupFunc, reason string) error {
	p.line("%s", p.paint(bold, "Agrenting quickstart"))
	p.line("against the platform of your environment, because %s is set; it only reads", reason)

	p.begin("Everything from the environment")
	base := agrenting.NewBaseTransport()
	defer base.CloseIdleConnections()
	client, err := agrenting.New(agrenting.WithLookupEnv(lookupEnv), agrenting.WithTransport(&tap{base: base, printer: p}))
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Credential(ctx); err != nil {
		return err
	}
	s := client.Status()
	p.line("   %-12s %s", "platform", s.Origin)
	p.line("   %-12s %s, %s, from %s", "credential", s.Kind, s.Fingerprint, s.Source)
	if s.Environment != "" {
		p.line("   %-12s %s", "environment", s.Environment)
	}

	p.begin("Up to three agents of the marketplace")
	n := 0
	for agent, err := range client.Agents.List(ctx, agrenting.CallQuery(url.Values{"limit": {"3"}})) {
		if err != nil {
			return err
		}
		p.note("%s  %v", agent.Name, agent.Capabilities)
		n++
		if n == 3 {
			break
		}
	}

	p.begin("An error with a type")
	_, err = client.Agents.Get(ctx, "did:agrenting:there-is-no-such-agent")
	var api *agrenting.APIError
	if !errors.As(err, &api) {
		return fmt.Errorf("step %d: want an *agrenting.APIError for an agent that cannot exist: got %w", p.step, errOr(err, "no error"))
	}
	p.note("errors.Is(err, agrenting.ErrNotFound) is %v; code %q, request id %q", errors.Is(err, agrenting.ErrNotFound), api.Code, api.RequestID)
	if r := client.Status().Rate; r.Known {
		p.note("%d of %d requests are left in this window", r.Remaining, r.Limit)
	}
	return nil
}

func errOr(err error, text string) error {
	if err == nil {
		return errors.New(text)
	}
	return err
}

// tap prints each request before it is sent.
type tap struct {
	*printer
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *tap) RoundTrip(req *http.Request) (*http.Response, error) {
	t.sent(req.Method, req.URL.Path, req.Header)
	resp, err := t.base.RoundTrip(req)
	if err == nil {
		t.back(resp.StatusCode, "%s", http.StatusText(resp.StatusCode))
	}
	return resp, err
}
