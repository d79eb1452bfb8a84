package agrenting

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTokensAreCreatedListedAndRevoked(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	c := clientOf(t, w.srv, WithCredential(UserToken(w.owner.Secret)))
	issued, err := c.Tokens.Create(t.Context(), TokenRequest{Name: "ci", Scopes: []string{"agents:read"}, ExpiresIn: time.Hour})
	require.NoError(t, err)
	assert.Equal(t, KindUserToken, issued.Credential.Kind())
	assert.WithinDuration(t, time.Now().Add(time.Hour), issued.Expires, time.Minute)

	other := clientOf(t, w.srv, WithCredential(issued.Credential))
	_, err = other.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	require.NoError(t, err)

	byName := map[string]Token{}
	for tok, err := range c.Tokens.List(t.Context()) {
		require.NoError(t, err)
		byName[tok.Name] = tok
	}
	require.Len(t, byName, 2)
	ci := byName["ci"]
	assert.Equal(t, issued.ID, ci.ID)
	assert.Equal(t, []string{"agents:read"}, ci.Scopes)
	assert.NotEmpty(t, ci.Hint)
	assert.WithinDuration(t, issued.Expires, ci.Expires, time.Second)

	require.NoError(t, c.Tokens.Revoke(t.Context(), ci.ID))
	_, err = other.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	require.ErrorIs(t, err, ErrUnauthorized)
	require.ErrorIs(t, c.Tokens.Revoke(t.Context(), ci.ID), ErrNotFound)
}

func TestTokensNeedAUserAndALifetimeOfSeconds(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	agent := clientOf(t, w.srv, WithCredential(APIKey(w.key.Secret)))
	_, err := agent.Tokens.Create(t.Context(), TokenRequest{Name: "x"})
	require.ErrorIs(t, err, ErrForbidden)

	base := answering(http.StatusOK, "{}")
	c := keyed(t, base)
	for _, d := range []time.Duration{-time.Second, time.Millisecond} {
		_, err := c.Tokens.Create(t.Context(), TokenRequest{Name: "x", ExpiresIn: d})
		require.ErrorIs(t, err, ErrInvalidOption)
	}
	require.Error(t, c.Tokens.Revoke(t.Context(), "../x"))
	assert.Empty(t, base.requests())

	_, err = c.Tokens.Create(t.Context(), TokenRequest{Name: "x", ExpiresIn: 90 * time.Second})
	e, ok := errors.AsType[*IssuedSecretError](err)
	require.True(t, ok, "no token was found in the answer: %v", err)
	assert.JSONEq(t, "{}", string(e.RawAnswer()))
	assert.JSONEq(t, `{"name":"x","expires_in":90}`, base.only(t).body)
}

func TestATokenDecodesWhateverItsMembersAre(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Token{
		`{"id":"t","scopes":["a"],"last4":"beef"}`: {ID: "t", Scopes: []string{"a"}, Hint: "beef"},
		`{"token_id":"t","scopes":"all"}`:          {ID: "t"},
		`{"id":{},"scopes":null,"expires_at":[]}`:  {},
	} {
		var tok Token
		require.NoError(t, json.Unmarshal([]byte(text), &tok), text)
		assert.Equal(t, want, tok, text)
	}
}
