package agrenting_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestSentinelsMatchStatusCodes(t *testing.T) {
	t.Parallel()
	all := map[string]error{
		"unauthorized": agrenting.ErrUnauthorized, "forbidden": agrenting.ErrForbidden, "not found": agrenting.ErrNotFound, "route": agrenting.ErrRouteNotFound,
		"rate": agrenting.ErrRateLimited, "conflict": agrenting.ErrConflict, "gone": agrenting.ErrGone, "validation": agrenting.ErrValidation, "server": agrenting.ErrServer,
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
			_, err := sdktest.Keyed(t, sdktest.Answering(tc.status, body), agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: 1})).
				Do(t.Context(), http.MethodGet, "/x", nil, nil)
			err = fmt.Errorf("wrapped: %w", err)
			var got []string
			for name, sentinel := range all {
				if errors.Is(err, sentinel) {
					got = append(got, name)
				}
			}
			assert.ElementsMatch(t, tc.want, got)
			api, ok := errors.AsType[*agrenting.APIError](err)
			require.True(t, ok)
			assert.Equal(t, tc.code, api.Code)
		})
	}
}

func TestTheTextOfAnAPIErrorIsComplete(t *testing.T) {
	t.Parallel()
	e := agrenting.CausedBy(agrenting.ErrNotReplayable, agrenting.APIError{
		StatusCode: 429, Code: "RATE_LIMIT_EXCEEDED", Message: "slow down", Field: "name", RequestID: "req_1",
		RetryAfter: 90 * time.Second, Attempts: 3, Method: "POST", Path: "/api/v1/tasks",
	})
	assert.Equal(t, "agrenting: POST /api/v1/tasks: 429 Too Many Requests RATE_LIMIT_EXCEEDED: slow down (field name) "+
		"[request req_1, 3 attempts, retry after 1m30s]; agrenting: request body cannot be sent again", e.Error())
	assert.Equal(t, "agrenting: 599", (&agrenting.APIError{StatusCode: 599, Attempts: 1}).Error())
	for code, says := range map[string]string{
		"NOT_FOUND": "agrenting: 404 Not Found", "ROUTE_NOT_FOUND": "agrenting: 404 Not Found ROUTE_NOT_FOUND", "": "agrenting: 404 Not Found",
	} {
		assert.Equal(t, says, (&agrenting.APIError{StatusCode: 404, Code: code}).Error(), "nothing is said twice")
	}
}

func TestAPIErrorHasRetryAfterBeyondPolicy(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusTooManyRequests, `{"errors":[{"code":"RATE_LIMIT_EXCEEDED","message":"m"}]}`, "Retry-After", "3600")
	resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrRateLimited)
	var api *agrenting.APIError
	require.ErrorAs(t, err, &api)
	assert.Equal(t, time.Hour, api.RetryAfter)
	assert.Equal(t, time.Hour, resp.Rate.RetryAfter)
	base.Only(t)
}

func TestRetryAfterDateIsReadByPlatformClock(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"same clock": 0, "platform ahead": 10 * time.Minute, "platform behind": -10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				header := func(after time.Duration) []string {
					now := time.Now().UTC().Add(skew)
					return []string{"Date", now.Format(http.TimeFormat), "Retry-After", now.Add(after).Format(http.TimeFormat)}
				}
				base := &sdktest.Recorder{}
				base.Then = func(n int, _ sdktest.Seen) *http.Response {
					if n == 1 {
						return sdktest.Reply(http.StatusTooManyRequests, "{}", header(20*time.Second)...)
					}
					return sdktest.Reply(http.StatusOK, "{}")
				}
				began := time.Now()
				_, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
				require.NoError(t, err)
				assert.InDelta(t, 21, time.Since(began).Seconds(), 2)

				base = sdktest.Answering(http.StatusTooManyRequests, "{}", header(2*time.Minute)...)
				resp, err := sdktest.Keyed(t, base).Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
				var e *agrenting.APIError
				require.ErrorAs(t, err, &e)
				assert.Equal(t, 2*time.Minute, e.RetryAfter)
				assert.Equal(t, 2*time.Minute, resp.Rate.RetryAfter)
				base.Only(t)
			})
		})
	}
}

func TestForeignTextIsBoundedAndOnOneLine(t *testing.T) {
	t.Parallel()
	body := `{"errors":[{"code":"C","message":"` + strings.Repeat(`one\n\ttwo\n`, 500) + `"}]}`
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusForbidden, body)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
	assert.Less(t, len(err.Error()), 700)
	assert.NotContains(t, err.Error(), "\n")
	assert.Contains(t, err.Error(), "one two one two")
	assert.True(t, strings.HasSuffix(err.Error(), "…"), err.Error())
	assert.Equal(t, "a? b", secret.Clean("a\xff\n b"))
}

func TestRenewalErrorText(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	cause := errors.New("agrenting: the store is away")
	e := &agrenting.RenewalError{RetryAt: at, Rejected: true, Failures: 2, Err: cause}
	assert.Equal(t, "agrenting: cannot obtain a credential in place of the one that the platform rejected: "+
		"the store is away. The next try is at 2026-01-02T03:04:05Z", e.Error())
	require.ErrorIs(t, e, cause)
	require.ErrorIs(t, e, agrenting.ErrUnauthorized)
	other := &agrenting.RenewalError{Err: cause}
	require.NotErrorIs(t, other, agrenting.ErrUnauthorized)
	assert.Equal(t, "agrenting: cannot obtain a credential: the store is away", other.Error())
	assert.Equal(t, "agrenting: cannot obtain a credential", new(agrenting.RenewalError).Error())
}

func TestRenewalErrorRedactsSourceError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secret = "sk_sandbox_Zq7Wm3Xp9Rt5"
		for _, text := range []string{
			"GET https://vault.example/v1?query-value=1 failed", "got " + secret, "Authorization: Bearer " + secret, `{"api_key":"` + secret + `"}`,
		} {
			src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { return agrenting.Credential{}, errors.New(text) })
			_, err := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, "{}"), src).Do(t.Context(), http.MethodGet, "/x", nil, nil)
			var renewal *agrenting.RenewalError
			require.ErrorAs(t, err, &renewal)
			sdktest.AssertClean(t, err.Error(), secret)
			sdktest.AssertClean(t, renewal.Error(), secret)
		}
	})
}

func TestPanickingSourceIsErrorWithoutSecret(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secret = "sk_sandbox_Zq7Wm3Xp9Rt5"
		src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) { panic("no use for " + secret) })
		c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, "{}"), src)
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorContains(t, err, "the credential source panicked: no use for [redacted]")
		sdktest.AssertClean(t, err.Error(), secret)
		sdktest.AssertClean(t, c.Status().LastError.Error(), secret)
	})
}

func TestALockoutErrorSaysUntilWhen(t *testing.T) {
	t.Parallel()
	answer := &agrenting.APIError{StatusCode: http.StatusTooManyRequests}
	e := &agrenting.LockoutError{RetryAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Err: answer}
	require.ErrorIs(t, e, agrenting.ErrLockedOut)
	require.ErrorIs(t, e, agrenting.ErrRateLimited, "the platform's response is within")
	require.NotErrorIs(t, e, agrenting.ErrUnauthorized)
	assert.Contains(t, e.Error(), "until 2026-01-02T03:04:05Z")
}
