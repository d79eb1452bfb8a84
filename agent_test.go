package agrenting

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
			var base recorder
			var opts []Option
			if tc.client != "" {
				opts = append(opts, WithAgentID(tc.client))
			}
			c := clientOver(t, &base, Static(UserToken("ap_1")), opts...)
			if tc.as != "" {
				c = c.As(tc.as)
			}
			ctx := t.Context()
			if tc.ctx != "" {
				ctx = ContextWithAgent(ctx, tc.ctx)
			}
			var calls []CallOption
			if tc.call != "" {
				calls = append(calls, CallAgent(tc.call))
			}
			if tc.header != "" {
				calls = append(calls, CallHeader("X-Agent-ID", tc.header))
			}
			_, err := c.Do(ctx, http.MethodGet, "/x", nil, nil, calls...)
			require.NoError(t, err)
			assert.Equal(t, tc.want, strings.Join(base.requests()[0].header["X-Agent-Id"], ","))
		})
	}
}

func TestAnAgentSetByTheCallerStandsAloneInAnySpelling(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"X-Agent-Id", "X-Agent-ID", "x-agent-id", "X-AGENT-ID"} {
		for kind, values := range map[string][]string{"one": {"mine"}, "no value": nil} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				var base recorder
				tr := transportOver(t, &base, Static(APIKey("k1")), WithAgentID("default"))
				req := request(t, http.MethodGet, "/x", nil)
				req.Header[name] = values
				resp, err := tr.RoundTrip(req)
				require.NoError(t, err)
				readAll(t, resp)
				got := base.requests()[0].header
				assert.Equal(t, values, got[name])
				delete(got, name)
				for other := range got {
					assert.False(t, strings.EqualFold(other, name), "a second identity under %s", other)
				}
				assert.Equal(t, "k1", secretOf(got))
			})
		}
	}
}

func TestAnInvalidAgentFailsBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()

	for _, id := range []string{"", " ", "a b", "a\nb", "a\r\nX-Api-Key: stolen", "a\x00", "a,b", "a;b", `a"b`, "ägent", strings.Repeat("a", maxAgentID+1)} {
		src := newMint("k1")
		var base recorder
		c := clientOver(t, &base, src)

		body := newSpyBody("body")
		req := request(t, http.MethodPost, "/x", body)
		err := failure(c.Transport(), req.WithContext(ContextWithAgent(req.Context(), id)))
		require.ErrorIs(t, err, ErrInvalidAgentID, "%q", id)
		assert.Equal(t, 1, body.closed())

		_, err = c.As(id).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorIs(t, err, ErrInvalidAgentID, "%q", id)
		_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil, CallAgent(id))
		require.ErrorIs(t, err, ErrInvalidAgentID, "%q", id)
		_, err = New(WithoutEnvironment(), WithCredential(APIKey("k1")), WithAgentID(id))
		require.ErrorIs(t, err, ErrInvalidAgentID, "%q", id)

		assert.Empty(t, base.requests(), "%q", id)
		assert.Zero(t, src.count(), "%q", id)
	}
}

func TestDocumentedAgentIDsAreAccepted(t *testing.T) {
	t.Parallel()

	for _, id := range []string{
		"7f9c24e8-3b1d-4c55-9e0a-1d2f3a4b5c6d", "did:agrenting:my-agent", "did:web:example.com%3A8080:agents:a",
		"did:key:z6MkhaXg#z6MkhaXg", "a", "!", "~", strings.Repeat("a", maxAgentID),
	} {
		assert.NoError(t, validateAgentID(id), id)
	}
}

func TestTheAgentOfAContextCanBeReadBack(t *testing.T) {
	t.Parallel()

	id, ok := AgentFromContext(t.Context())
	assert.False(t, ok)
	assert.Empty(t, id)

	ctx := ContextWithAgent(t.Context(), "a1")
	inner := ContextWithAgent(ctx, "a2")
	id, ok = AgentFromContext(ctx)
	assert.True(t, ok)
	assert.Equal(t, "a1", id)
	id, _ = AgentFromContext(inner)
	assert.Equal(t, "a2", id)
	_, ok = AgentFromContext(ContextWithAgent(t.Context(), "not valid"))
	assert.False(t, ok)
}

func TestAgentsOfOneClientShareItsCredential(t *testing.T) {
	t.Parallel()

	src := newMint("k1")
	base := newPlatform("k1")
	a := clientOver(t, base, src, WithAgentID("a1"))
	b := a.As("a2")
	for _, c := range []*Client{a, b, a} {
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
	}
	var agents []string
	for _, s := range base.requests() {
		agents = append(agents, s.header.Get("X-Agent-Id"))
	}
	assert.Equal(t, []string{"a1", "a2", "a1"}, agents)
	assert.Equal(t, 1, src.count(), "one credential for both")
	require.NoError(t, b.Close())
	_, err := a.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, ErrClosed)
}
