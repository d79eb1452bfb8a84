package agrenting_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// reply is a response; the zero one is a lost connection.
type reply struct {
	status int
	body   string
	broken bool // it breaks off after body
}

var lost reply

func refusal(status int, code string) reply {
	return reply{status: status, body: `{"data":null,"errors":[{"code":"` + code + `","message":"m"}]}`}
}

func page(status int) reply { return reply{status: status, body: "<html>"} }

// replies responds with one after the other.
func replies(t *testing.T, all []reply) http.RoundTripper {
	t.Helper()
	return sdktest.RoundTripFunc(func(req *http.Request) (*http.Response, error) {
		require.NotEmpty(t, all, "%s %s", req.Method, req.URL.Path)
		next := all[0]
		all = all[1:]
		if next == lost {
			return nil, errors.New("connection reset by peer")
		}
		if next.broken {
			return brokenAfter(next.status, next.body, io.ErrUnexpectedEOF), nil
		}
		return sdktest.Reply(next.status, next.body), nil
	})
}

func TestRepeatedDeletion(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, *agrenting.Client) error{
		"key":     func(ctx context.Context, c *agrenting.Client) error { return c.Keys.Revoke(ctx, "agent-1", "key-1") },
		"token":   func(ctx context.Context, c *agrenting.Client) error { return c.Tokens.Revoke(ctx, "token-1") },
		"session": func(ctx context.Context, c *agrenting.Client) error { return c.Sessions.Logout(ctx) },
	}
	for name, tc := range map[string]struct {
		replies []reply
		want    error
	}{
		"404 at once":               {[]reply{refusal(404, "NOT_FOUND")}, agrenting.ErrNotFound},
		"410 at once":               {[]reply{refusal(410, "GONE")}, agrenting.ErrGone},
		"lost, 404":                 {[]reply{lost, refusal(404, "NOT_FOUND")}, nil},
		"lost, 410":                 {[]reply{lost, refusal(410, "GONE")}, nil},
		"502 page, 404":             {[]reply{page(502), refusal(404, "NOT_FOUND")}, nil},
		"broken 200, 404":           {[]reply{{status: 200, body: `{"da`, broken: true}, refusal(404, "NOT_FOUND")}, nil},
		"500, 404":                  {[]reply{refusal(500, "INTERNAL_ERROR"), refusal(404, "NOT_FOUND")}, nil},
		"lost, 429, 404":            {[]reply{lost, refusal(429, "RATE_LIMIT_EXCEEDED"), refusal(404, "NOT_FOUND")}, nil},
		"429, 404":                  {[]reply{refusal(429, "RATE_LIMIT_EXCEEDED"), refusal(404, "NOT_FOUND")}, agrenting.ErrNotFound},
		"lost, 404 page":            {[]reply{lost, page(404)}, agrenting.ErrNotFound},
		"lost, 404 without a route": {[]reply{lost, refusal(404, "ROUTE_NOT_FOUND")}, agrenting.ErrRouteNotFound},
		"lost, 403":                 {[]reply{lost, refusal(403, "FORBIDDEN")}, agrenting.ErrForbidden},
	} {
		for what, call := range calls {
			t.Run(name+", "+what, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := sdktest.ClientOver(t, replies(t, tc.replies), agrenting.Static(agrenting.UserToken("ap_0123456789abcdef")))
					err := call(t.Context(), c)
					require.ErrorIs(t, err, tc.want)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestLogoutWithLostResponse(t *testing.T) {
	t.Parallel()
	dead := refusal(http.StatusUnauthorized, "UNAUTHORIZED")
	for name, tc := range map[string]struct {
		replies []reply
		want    error
	}{
		"ended":              {[]reply{lost, dead, dead, dead, dead}, nil}, // one call, and three questions
		"ended before":       {[]reply{dead, dead, dead, dead}, agrenting.ErrUnauthorized},
		"refused, and alive": {[]reply{lost, dead, {status: http.StatusOK, body: `{"data":[]}`}}, agrenting.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := sdktest.ClientOver(t, replies(t, tc.replies), agrenting.Static(agrenting.SessionToken("session-0123456789", time.Time{})))
				err := c.Sessions.Logout(t.Context())
				require.ErrorIs(t, err, tc.want)
				require.NoError(t, c.Close())
			})
		})
	}
}
