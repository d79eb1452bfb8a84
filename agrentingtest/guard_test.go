package agrentingtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// guarded sends a request to a handler behind Guard and returns the status, the
// principal that the handler saw, and the code of a refusal.
func guarded(t *testing.T, w *world, header ...string) (status int, seen agrentingtest.Principal, code string) {
	t.Helper()
	h := w.Guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var ok bool
		seen, ok = agrentingtest.PrincipalFrom(r.Context())
		assert.True(t, ok)
	}))
	body := strings.NewReader("a body that a refusal leaves alone")
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://elsewhere.example/x", body)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		assert.Equal(t, "a body that a refusal leaves alone", readRest(t, body))
		var env struct {
			Errors []struct{ Code string }
			Meta   struct {
				RequestID string `json:"request_id"`
			}
		}
		require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &env), rec.Body)
		require.Len(t, env.Errors, 1)
		assert.NotEmpty(t, env.Meta.RequestID)
		code = env.Errors[0].Code
	}
	return rec.Code, seen, code
}

func readRest(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(b)
}

func TestGuardAcceptsPlatformCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	session, _ := w.NewSession(w.key.Secret)
	second := w.NewAgent(w.user, agrentingtest.AgentConfig{Name: "Scout"})
	stranger := w.NewAgent(nil, agrentingtest.AgentConfig{Name: "Stranger"})
	revoked := w.NewKey(w.agent.ID)
	w.RevokeKey(revoked.ID)
	gone := w.NewToken(w.user.ID, agrentingtest.TokenConfig{Name: "gone"})
	w.RevokeToken(gone.ID)

	cases := []struct {
		name   string
		header []string
		status int
		kind   agrentingtest.CredentialKind
		agent  string
		code   string
	}{
		{"key", []string{"X-API-Key", w.key.Secret}, 200, agrentingtest.KindAPIKey, w.agent.ID, ""},
		{"key by its other name", []string{"Api-Key", w.key.Secret}, 200, agrentingtest.KindAPIKey, w.agent.ID, ""},
		{"session", []string{"Authorization", "Bearer " + session}, 200, agrentingtest.KindSession, w.agent.ID, ""},
		{"token", []string{"Authorization", "Bearer " + w.token.Secret}, 200, agrentingtest.KindUserToken, "", ""},
		{
			"token for an agent",
			[]string{"Authorization", "Bearer " + w.token.Secret, "X-Agent-ID", second.ID},
			200, agrentingtest.KindUserToken, second.ID, "",
		},
		{"nothing", nil, 401, "", "", agrentingtest.CodeUnauthorized},
		{"revoked key", []string{"X-API-Key", revoked.Secret}, 401, "", "", agrentingtest.CodeUnauthorized},
		{"revoked token", []string{"Authorization", "Bearer " + gone.Secret}, 401, "", "", agrentingtest.CodeUnauthorized},
		{"key as bearer", []string{"Authorization", "Bearer " + w.key.Secret}, 401, "", "", agrentingtest.CodeUnauthorized},
		{
			"two credentials",
			[]string{"X-API-Key", w.key.Secret, "Authorization", "Bearer " + session},
			401, "", "", agrentingtest.CodeUnauthorized,
		},
		{
			"another user's agent",
			[]string{"Authorization", "Bearer " + w.token.Secret, "X-Agent-ID", stranger.ID},
			403, "", "", agrentingtest.CodeForbidden,
		},
		{
			"a value that is not an agent",
			[]string{"Authorization", "Bearer " + w.token.Secret, "X-Agent-ID", "Scout"},
			422, "", "", agrentingtest.CodeValidation,
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			status, seen, code := guarded(t, w, c.header...)
			assert.Equal(t, c.status, status)
			assert.Equal(t, c.kind, seen.Kind)
			assert.Equal(t, c.agent, seen.AgentID)
			assert.Equal(t, c.code, code)
		})
	}
}

func TestGuardChecksExpiryAndRevocationPerRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, agrentingtest.WithSessionTTL(time.Hour))
		bearer := func(token string) int {
			status, _, _ := guarded(t, w, "Authorization", "Bearer "+token)
			return status
		}
		first, _ := w.NewSession(w.key.Secret)
		advance(time.Hour - time.Nanosecond)
		assert.Equal(t, 200, bearer(first))
		advance(time.Nanosecond)
		assert.Equal(t, 401, bearer(first), "expired")

		second, _ := w.NewSession(w.key.Secret)
		assert.Equal(t, 200, bearer(second))
		w.RevokeSessions()
		assert.Equal(t, 401, bearer(second), "revoked")
	})
}

func TestGuardLeavesThePlatformsBooksAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1}))
	w.Fault("*", agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	for range 5 {
		status, _, _ := guarded(t, w, "X-API-Key", w.key.Secret)
		require.Equal(t, 200, status)
	}
	guarded(t, w)
	assert.Empty(t, w.Requests())
	assert.Zero(t, w.Stats())
}

func TestVerifyReadsHeadersInAnyCase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.Verify(http.Header{"x-api-key": {w.key.Secret}, "x-agent-id": {w.agent.ID}})
	require.NoError(t, err)
	assert.Equal(t, w.agent.ID, p.AgentID)

	_, err = w.Verify(http.Header{"x-api-key": {w.key.Secret}, "Api-Key": {w.key.Secret}})
	refused, ok := err.(*agrentingtest.RefusedError) //nolint:errorlint // documented to be just that
	require.True(t, ok)
	assert.Equal(t, http.StatusUnauthorized, refused.Status)
	assert.NotContains(t, fmt.Sprintf("%v %+v", err, refused), w.key.Secret)
}

// Your own service may trust the platform's credentials. The test of its client
// then needs no platform.
func ExampleServer_Guard() {
	platform := agrentingtest.NewServer()
	defer platform.Close()
	agent := platform.NewAgent(platform.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe"})
	key := platform.NewKey(agent.ID)

	service := httptest.NewServer(platform.Guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, _ := agrentingtest.PrincipalFrom(r.Context())
		_, _ = fmt.Fprintf(w, "hello %t, by %s", who.AgentID == agent.ID, who.Kind)
	})))
	defer service.Close()

	fmt.Println(send(service.Client(), http.MethodGet, service.URL, "X-API-Key", key.Secret))
	platform.RevokeKey(key.ID)
	status, _ := send(service.Client(), http.MethodGet, service.URL, "X-API-Key", key.Secret)
	fmt.Println(status)
	// Output:
	// 200 hello true, by api_key
	// 401
}
