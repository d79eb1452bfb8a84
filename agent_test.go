package agrenting_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestTheAgentIsTheOneNamedMostClosely(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		client, as, ctx, call, header string
		want                          string
	}{
		"none":                       {want: ""},
		"the client's":               {client: "a1", want: "a1"},
		"As before the client's":     {client: "a1", as: "a2", want: "a2"},
		"As without a default":       {as: "a2", want: "a2"},
		"context before As":          {client: "a1", as: "a2", ctx: "a3", want: "a3"},
		"call before context":        {client: "a1", as: "a2", ctx: "a3", call: "a4", want: "a4"},
		"header before call":         {client: "a1", as: "a2", ctx: "a3", call: "a4", header: "a5", want: "a5"},
		"header before the client's": {client: "a1", header: "a5", want: "a5"},
		"header alone":               {header: "a5", want: "a5"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var base sdktest.Recorder
			var opts []agrenting.Option
			if tc.client != "" {
				opts = append(opts, agrenting.WithAgentID(tc.client))
			}
			c := sdktest.ClientOver(t, &base, agrenting.Static(agrenting.UserToken("ap_1")), opts...)
			if tc.as != "" {
				c = c.As(tc.as)
			}
			ctx := t.Context()
			if tc.ctx != "" {
				ctx = agrenting.ContextWithAgent(ctx, tc.ctx)
			}
			var calls []agrenting.CallOption
			if tc.call != "" {
				calls = append(calls, agrenting.CallAgent(tc.call))
			}
			if tc.header != "" {
				calls = append(calls, agrenting.CallHeader("X-Agent-ID", tc.header))
			}
			_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil, calls...)
			require.NoError(t, err)
			assert.Equal(t, tc.want, strings.Join(base.Requests()[0].Header["X-Agent-Id"], ","))
		})
	}
}

func TestCallersAgentHeaderIsKeptInAnySpelling(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"X-Agent-Id", "X-Agent-ID", "x-agent-id", "X-AGENT-ID"} {
		for kind, values := range map[string][]string{"one": {"mine"}, "no value": nil} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				var base sdktest.Recorder
				tr := sdktest.TransportOver(t, &base, agrenting.Static(agrenting.APIKey("k1")), agrenting.WithAgentID("default"))
				req := sdktest.Request(t, http.MethodGet, "/x", nil)
				req.Header[name] = values
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				readAll(t, resp)
				got := base.Requests()[0].Header
				assert.Equal(t, values, got[name])
				delete(got, name)
				for other := range got {
					assert.False(t, ascii.EqualFold(other, name), "a second identity under %s", other)
				}
				assert.Equal(t, "k1", sdktest.SecretOf(got))
			})
		}
	}
}

func TestAnInvalidAgentFailsBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()

	for _, id := range []string{"", " ", "a b", "a\nb", "a\r\nX-Api-Key: stolen", "a\x00", "a,b", "a;b", `a"b`, "ägent", strings.Repeat("a", agrenting.MaxAgentID+1)} {
		src := sdktest.NewSource("k1")
		var base sdktest.Recorder
		c := sdktest.ClientOver(t, &base, src)

		body := sdktest.NewSpyBody("body")
		req := sdktest.Request(t, http.MethodPost, "/x", body)
		err := sdktest.Failure(c.Transport(), req.WithContext(agrenting.ContextWithAgent(req.Context(), id)))
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID, "%q", id)
		assert.Equal(t, 1, body.Closed())

		_, err = c.As(id).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID, "%q", id)
		_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil, agrenting.CallAgent(id))
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID, "%q", id)
		_, err = agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("k1")), agrenting.WithAgentID(id))
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID, "%q", id)

		assert.Empty(t, base.Requests(), "%q", id)
		assert.Zero(t, src.Count(), "%q", id)
	}
}

func TestDocumentedAgentIDsAreAccepted(t *testing.T) {
	t.Parallel()

	for _, id := range []string{
		"7f9c24e8-3b1d-4c55-9e0a-1d2f3a4b5c6d", "did:agrenting:my-agent", "did:web:example.com%3A8080:agents:a",
		"did:key:z6MkhaXg#z6MkhaXg", "a", "!", "~", strings.Repeat("a", agrenting.MaxAgentID),
	} {
		assert.NoError(t, agrenting.ValidateAgentID(id), id)
	}
}

func TestAgentFromContext(t *testing.T) {
	t.Parallel()

	id, ok := agrenting.AgentFromContext(t.Context())
	assert.False(t, ok)
	assert.Empty(t, id)

	ctx := agrenting.ContextWithAgent(t.Context(), "a1")
	inner := agrenting.ContextWithAgent(ctx, "a2")
	id, ok = agrenting.AgentFromContext(ctx)
	assert.True(t, ok)
	assert.Equal(t, "a1", id)
	id, _ = agrenting.AgentFromContext(inner)
	assert.Equal(t, "a2", id)
	_, ok = agrenting.AgentFromContext(agrenting.ContextWithAgent(t.Context(), "not valid"))
	assert.False(t, ok)
}

func TestAgentsOfOneClientShareItsCredential(t *testing.T) {
	t.Parallel()

	src := sdktest.NewSource("k1")
	base := sdktest.NewPlatform("k1")
	a := sdktest.ClientOver(t, base, src, agrenting.WithAgentID("a1"))
	b := a.As("a2")
	for _, c := range []*agrenting.Client{a, b, a} {
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
	}
	var agents []string
	for _, s := range base.Requests() {
		agents = append(agents, s.Header.Get("X-Agent-Id"))
	}
	assert.Equal(t, []string{"a1", "a2", "a1"}, agents)
	assert.Equal(t, 1, src.Count(), "one credential for both")
	require.NoError(t, b.Close())
	_, err := a.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrClosed)
}
