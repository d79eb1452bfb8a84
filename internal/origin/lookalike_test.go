package origin_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// İ (U+0130) is lower-cased to the ASCII i by unicode.ToLower; IDNA, and so
// net/http, makes i + U+0307 of it, which is another domain.
const lookalike = "https://agrent\u0130ng.com"

func TestAuthorizeRefusesLookalikeOrigin(t *testing.T) {
	t.Parallel()
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL("https://agrenting.com"), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)))
	require.NoError(t, err)
	defer c.Close()
	auth, err := c.Authorize(t.Context(), lookalike+"/socket")
	if err == nil {
		dialed := ""
		plain := &http.Transport{DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			dialed = addr
			return nil, errors.New("no")
		}}
		req := sdktest.Request(t, http.MethodGet, lookalike+"/socket", http.NoBody)
		req.Header = auth.Header()
		_, _ = plain.RoundTrip(req) //nolint:bodyclose // there is none
		t.Fatalf("credential %v was handed out for a URL that net/http dials as %s", auth, dialed)
	}
	assert.ErrorIs(t, err, agrenting.ErrForeignOrigin)
}

func TestRedirectToLookalikeOriginGetsNoKey(t *testing.T) {
	t.Parallel()
	dialed, sent := "", ""
	dial := &http.Transport{DialTLSContext: func(_ context.Context, _, addr string) (net.Conn, error) {
		dialed = addr
		return nil, errors.New("no")
	}}
	base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "agrenting.com" { // an open redirect
			resp := sdktest.Reply(http.StatusFound, "")
			resp.Header.Set("Location", lookalike+"/steal")
			return resp, nil
		}
		sent = r.Header.Get("X-Api-Key")
		return dial.RoundTrip(r)
	})
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL("https://agrenting.com"), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)),
		agrenting.WithTransport(base))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "https://agrenting.com/go", http.NoBody)) //nolint:bodyclose // there is none
	require.Error(t, err)
	assert.Empty(t, sent, "the key went to %s", dialed)
}
