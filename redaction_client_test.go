package agrenting

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestClientPrintsNoSecret holds what a client hands out against
// every way of making text of a value, with a platform that echoes the key
// wherever it can.
func TestClientPrintsNoSecret(t *testing.T) {
	t.Parallel()
	key := APIKey(probeSecret)
	quoted, err := json.Marshal("you sent " + probeSecret + " or " + url.QueryEscape(probeSecret) + " or " +
		base64.StdEncoding.EncodeToString([]byte("user:"+probeSecret)))
	require.NoError(t, err)
	echo := string(quoted)
	entry := `{"code":"UNAUTHORIZED","message":` + echo + `,"field":` + echo + `,"details":{"sent":[` + echo + `]}}`
	failing := forgetful(http.StatusUnauthorized, `{"meta":{"request_id":`+echo+`},"errors":[`+entry+`,`+entry+`]}`)
	fine := forgetful(http.StatusOK, `{"data":{"session_token":"`+probeSecret+`","expires_at":"2026-12-24T18:00:00Z"}}`)
	target := "/x?api_key=" + url.QueryEscape(probeSecret)
	by := func(cred Credential, base http.RoundTripper, opts ...Option) *Client {
		return clientOver(t, base, Static(cred), opts...)
	}

	seen := &eventLog{}
	src := newMint(probeSecret)
	c := clientOver(t, fine, src, WithObserver(seen.observe), WithAgentID("agent-1"))
	resp, err := c.Do(t.Context(), http.MethodGet, target, nil, nil)
	require.NoError(t, err)
	session, err := c.Sessions.Authenticate(t.Context())
	require.NoError(t, err)

	failed := clientOver(t, failing, src, WithObserver(seen.observe))
	_, apiErr := failed.Do(t.Context(), http.MethodGet, target, nil, nil)
	require.ErrorIs(t, apiErr, ErrUnauthorized)
	api, ok := errors.AsType[*APIError](apiErr)
	require.True(t, ok)

	broken := clientOver(t, fine, CredentialSourceFunc(func(context.Context) (Credential, error) {
		panic("no use for " + "sk_sandbox_Zq7Wm3Xp9Rt5Kv2Ln8")
	}), WithObserver(seen.observe))
	_, renewalErr := broken.Do(t.Context(), http.MethodGet, target, nil, nil)
	renewal, ok := errors.AsType[*RenewalError](renewalErr)
	require.True(t, ok)

	_, lockoutErr := by(key, forgetful(http.StatusTooManyRequests, `{"errors":[`+entry+`]}`)).Sessions.Authenticate(t.Context())
	lockout, ok := errors.AsType[*LockoutError](lockoutErr)
	require.True(t, ok)
	_, exchangeErr := by(key, failing).Sessions.Authenticate(t.Context())
	require.Error(t, exchangeErr)

	registered, err := by(APIKey("sk_sandbox_other"), forgetful(http.StatusCreated,
		`{"data":{"agent":{"id":"a1"},"api_key":"`+probeSecret+`","message":`+echo+`}}`)).Agents.Register(t.Context(), scribe)
	require.NoError(t, err)

	_, noneErr := New(lookupIn(map[string]string{"AGRENTING_SANDBOX_API_KEY": probeSecret}))
	none, ok := errors.AsType[*NoCredentialError](noneErr)
	require.True(t, ok)
	_, mismatchErr := New(WithoutEnvironment(), WithEnvironment(Production), WithCredential(key))
	require.Error(t, mismatchErr)
	dropped := tripFunc(func(*http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Get", URL: apiURL + target, Err: errors.New("connection refused")}
	})
	_, callErr := by(key, dropped, WithRetryPolicy(RetryPolicy{MaxAttempts: 1})).Do(t.Context(), http.MethodGet, target, nil, nil)
	require.Error(t, callErr)

	require.NoError(t, c.Close())
	require.NoError(t, failed.Close())
	require.NoError(t, broken.Close())

	const other = "sk_sandbox_Zq7Wm3Xp9Rt5Kv2Ln8"
	fixed := by(key, fine)
	probe(t, "client", fixed, probeSecret)
	probe(t, "agents", fixed.Agents, probeSecret)
	probe(t, "sessions", fixed.Sessions, probeSecret)
	probe(t, "transport", fixed.transport, probeSecret)
	probe(t, "round tripper", fixed.Transport(), probeSecret)
	probe(t, "status", by(key, fine).Status(), probeSecret)
	probe(t, "status after a rejection", failed.Status(), probeSecret)
	probe(t, "status of a broken source", broken.Status(), probeSecret, other)
	for _, e := range seen.all() {
		probe(t, "event "+string(e.Type), e, probeSecret, other)
	}
	probe(t, "response", resp, probeSecret)
	probe(t, "session", session, probeSecret)
	probe(t, "registered agent", registered, probeSecret)
	probe(t, "API error", api, probeSecret)
	probe(t, "renewal error", renewal, probeSecret, other)
	probe(t, "lockout error", lockout, probeSecret)
	probe(t, "no credential error", none, probeSecret)
	for name, err := range map[string]error{
		"error of a call": apiErr, "error of a connection": callErr, "error of a renewal": renewalErr,
		"error of an exchange": exchangeErr, "error of a lockout": lockoutErr, "error of the guard": mismatchErr,
	} {
		probe(t, name, err, probeSecret, other)
	}
}

// forgetful is a base that keeps nothing of what it was sent: reflection finds
// it within the client.
func forgetful(code int, body string) http.RoundTripper {
	return tripFunc(func(req *http.Request) (*http.Response, error) {
		swallow(req)
		return reply(code, body), nil
	})
}

func TestAnAuthorizationPrintsNoSecret(t *testing.T) {
	t.Parallel()
	a, err := clientOver(t, &recorder{}, Static(APIKey(probeSecret)), WithEnvironment(Sandbox)).Authorize(t.Context(), apiURL)
	require.NoError(t, err)
	probe(t, "authorization", a, probeSecret)
	probe(t, "authorization by value", *a, probeSecret)
	assert.Contains(t, a.String(), APIKey(probeSecret).Fingerprint())
}
