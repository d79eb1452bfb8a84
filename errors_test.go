package agrenting

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestSentinelsMatchWhatTheyStandFor(t *testing.T) {
	t.Parallel()
	all := map[string]error{
		"unauthorized": ErrUnauthorized, "forbidden": ErrForbidden, "not found": ErrNotFound, "route": ErrRouteNotFound,
		"rate": ErrRateLimited, "conflict": ErrConflict, "gone": ErrGone, "validation": ErrValidation, "server": ErrServer,
	}
	cases := []struct {
		status int
		code   string
		want   []string
	}{
		{400, "", []string{"validation"}},
		{401, "UNAUTHORIZED", []string{"unauthorized"}},
		{402, "PAYMENT_FAILED", nil},
		{403, "FORBIDDEN", []string{"forbidden"}},
		{403, "SWARMS_DISABLED", []string{"forbidden"}},
		{404, "NOT_FOUND", []string{"not found"}},
		{404, "ROUTE_NOT_FOUND", []string{"not found", "route"}},
		{409, "DISPUTE_OPEN", []string{"conflict"}},
		{409, "IDEMPOTENCY_PENDING", []string{"conflict"}},
		{409, "IDEMPOTENCY_CONFLICT", []string{"conflict"}},
		{410, "", []string{"gone"}},
		{418, "", nil},
		{422, "VALIDATION_ERROR", []string{"validation"}},
		{422, "IDEMPOTENCY_MISMATCH", []string{"validation"}},
		{423, "ESCROW_LOCKED", nil},
		{429, "RATE_LIMIT_EXCEEDED", []string{"rate"}},
		{500, "INTERNAL_ERROR", []string{"server"}},
		{503, "AGENT_UNAVAILABLE", []string{"server"}},
		{200, "PARTIAL", nil},
	}
	for _, tc := range cases {
		t.Run(fmt.Sprint(tc.status, " ", tc.code), func(t *testing.T) {
			t.Parallel()
			body := fmt.Sprintf(`{"errors":[{"code":%q,"message":"m"}]}`, tc.code)
			_, err := keyed(t, answering(tc.status, body), WithRetryPolicy(RetryPolicy{MaxAttempts: 1})).
				Do(t.Context(), http.MethodGet, "/x", nil, nil)
			err = fmt.Errorf("wrapped: %w", err)
			var got []string
			for name, sentinel := range all {
				if errors.Is(err, sentinel) {
					got = append(got, name)
				}
			}
			assert.ElementsMatch(t, tc.want, got)
			api, ok := errors.AsType[*APIError](err)
			require.True(t, ok)
			assert.Equal(t, tc.code, api.Code)
		})
	}
}

func TestTheTextOfAnAPIErrorIsComplete(t *testing.T) {
	t.Parallel()
	e := &APIError{
		StatusCode: 429, Code: "RATE_LIMIT_EXCEEDED", Message: "slow down", Field: "name", RequestID: "req_1",
		RetryAfter: 90 * time.Second, Attempts: 3, Method: "POST", Path: "/api/v1/tasks", cause: ErrNotReplayable,
	}
	assert.Equal(t, "agrenting: POST /api/v1/tasks: 429 Too Many Requests RATE_LIMIT_EXCEEDED: slow down (field name) "+
		"[request req_1, 3 attempts, retry after 1m30s]; agrenting: request body cannot be sent again", e.Error())
	assert.Equal(t, "agrenting: 599", (&APIError{StatusCode: 599, Attempts: 1}).Error())
	for code, says := range map[string]string{
		"NOT_FOUND": "agrenting: 404 Not Found", "ROUTE_NOT_FOUND": "agrenting: 404 Not Found ROUTE_NOT_FOUND", "": "agrenting: 404 Not Found",
	} {
		assert.Equal(t, says, (&APIError{StatusCode: 404, Code: code}).Error(), "nothing is said twice")
	}
}

func TestAnAPIErrorCarriesRetryAfterBeyondThePolicy(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusTooManyRequests, `{"errors":[{"code":"RATE_LIMIT_EXCEEDED","message":"m"}]}`, "Retry-After", "3600")
	resp, err := keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, ErrRateLimited)
	var api *APIError
	require.ErrorAs(t, err, &api)
	assert.Equal(t, time.Hour, api.RetryAfter)
	assert.Equal(t, time.Hour, resp.Rate.RetryAfter)
	base.only(t)
}

func TestForeignTextIsBoundedAndOnOneLine(t *testing.T) {
	t.Parallel()
	body := `{"errors":[{"code":"C","message":"` + strings.Repeat(`one\n\ttwo\n`, 500) + `"}]}`
	_, err := keyed(t, answering(http.StatusForbidden, body)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	assert.Less(t, len(err.Error()), 700)
	assert.NotContains(t, err.Error(), "\n")
	assert.Contains(t, err.Error(), "one two one two")
	assert.True(t, strings.HasSuffix(err.Error(), "…"), err.Error())
	assert.Equal(t, "a? b", secret.Clean("a\xff\n b"))
}

func TestARenewalErrorSaysWhatHappened(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cause := errors.New("agrenting: the store is away")
	e := &RenewalError{RetryAt: at, Rejected: true, Failures: 2, Err: cause}
	assert.Equal(t, "agrenting: cannot obtain a credential in place of the one that the platform rejected: "+
		"the store is away (next try at 2026-01-02T03:04:05Z)", e.Error())
	require.ErrorIs(t, e, cause)
	require.ErrorIs(t, e, ErrUnauthorized)
	other := &RenewalError{Err: cause}
	require.NotErrorIs(t, other, ErrUnauthorized)
	assert.Equal(t, "agrenting: cannot obtain a credential: the store is away", other.Error())
	assert.Equal(t, "agrenting: cannot obtain a credential", new(RenewalError).Error())
}

func TestARenewalErrorHidesWhatItsSourceSays(t *testing.T) {
	t.Parallel()
	const secret = "sk_sandbox_Zq7Wm3Xp9Rt5"
	for _, text := range []string{
		"GET https://vault.example/v1?query-value=1 failed", "got " + secret, "Authorization: Bearer " + secret, `{"api_key":"` + secret + `"}`,
	} {
		src := CredentialSourceFunc(func(context.Context) (Credential, error) { return Credential{}, errors.New(text) })
		_, err := clientOver(t, answering(http.StatusOK, "{}"), src).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		var renewal *RenewalError
		require.ErrorAs(t, err, &renewal)
		assertClean(t, err.Error(), secret)
		assertClean(t, renewal.Error(), secret)
	}
}

func TestAPanickingSourceIsAnErrorWithoutItsSecret(t *testing.T) {
	t.Parallel()
	const secret = "sk_sandbox_Zq7Wm3Xp9Rt5"
	src := CredentialSourceFunc(func(context.Context) (Credential, error) { panic("no use for " + secret) })
	c := clientOver(t, answering(http.StatusOK, "{}"), src)
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorContains(t, err, "the credential source panicked: no use for [redacted]")
	assertClean(t, err.Error(), secret)
	assertClean(t, c.Status().LastError.Error(), secret)
}

func TestALockoutErrorSaysUntilWhen(t *testing.T) {
	t.Parallel()
	answer := &APIError{StatusCode: http.StatusTooManyRequests}
	e := &LockoutError{RetryAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Err: answer}
	require.ErrorIs(t, e, ErrLockedOut)
	require.ErrorIs(t, e, ErrRateLimited, "the platform's answer is within")
	require.NotErrorIs(t, e, ErrUnauthorized)
	assert.Contains(t, e.Error(), "until 2026-01-02T03:04:05Z")
}
