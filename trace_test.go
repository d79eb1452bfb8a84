package agrenting_test

import (
	"encoding/base64"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestTraceRedactsSentCredential(t *testing.T) {
	t.Parallel()
	var trace agrenting.Trace
	assert.Equal(t, "key "+sdktest.TestKey, trace.Redact("key "+sdktest.TestKey), "nothing was sent")

	ctx := agrenting.ContextWithTrace(t.Context(), &trace)
	_, err := sdktest.Keyed(t, sdktest.Answers(http.StatusOK)).Do(ctx, http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	for text, want := range map[string]string{
		"":                             "",
		"the same":                     "the same",
		"key " + sdktest.TestKey + ".": "key [redacted].",
		base64.StdEncoding.EncodeToString([]byte(sdktest.TestKey)): "[redacted]",
	} {
		assert.Equal(t, want, trace.Redact(text))
	}

	anonymous, err := agrenting.New(agrenting.WithAnonymous(), agrenting.WithBaseURL(sdktest.APIURL),
		agrenting.WithTransport(sdktest.Answers(http.StatusOK)))
	require.NoError(t, err)
	_, err = anonymous.Do(ctx, http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, "key "+sdktest.TestKey, trace.Redact("key "+sdktest.TestKey), "no credential was sent")
}

func TestTraceRedactsRenewedCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t)
		c := w.Client(agrenting.WithSession())
		require.NoError(t, w.Call(c))
		old, err := c.Credential(t.Context())
		require.NoError(t, err)
		w.Server.RevokeSessions()
		var trace agrenting.Trace
		_, err = c.Do(agrenting.ContextWithTrace(t.Context(), &trace), http.MethodGet, "/api/v1/hirings/pending", nil, nil)
		require.NoError(t, err)
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		require.False(t, cred.Equal(old))
		assert.Equal(t, "[redacted]", trace.Redact(cred.Reveal()))
		require.NoError(t, c.Close())
	})
}
