package agrenting_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestTokensAreCreatedListedAndRevoked(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	c := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.UserToken(w.Owner.Secret)))
	issued, err := c.Tokens.Create(t.Context(), agrenting.TokenRequest{Name: "ci", Scopes: []string{"agents:read"}, ExpiresIn: time.Hour})
	require.NoError(t, err)
	assert.Equal(t, agrenting.KindUserToken, issued.Credential.Kind())
	assert.WithinDuration(t, time.Now().Add(time.Hour), issued.Expires, time.Minute)

	other := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(issued.Credential))
	_, err = other.Do(t.Context(), http.MethodGet, "/api/v1/agents", nil, nil)
	require.NoError(t, err)

	byName := map[string]agrenting.Token{}
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
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	require.ErrorIs(t, c.Tokens.Revoke(t.Context(), ci.ID), agrenting.ErrNotFound)
}

func TestTokensValidateArguments(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	agent := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)))
	_, err := agent.Tokens.Create(t.Context(), agrenting.TokenRequest{Name: "x"})
	require.ErrorIs(t, err, agrenting.ErrForbidden)

	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base)
	for _, d := range []time.Duration{-time.Second, time.Millisecond} {
		_, err := c.Tokens.Create(t.Context(), agrenting.TokenRequest{Name: "x", ExpiresIn: d})
		require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	}
	require.Error(t, c.Tokens.Revoke(t.Context(), "../x"))
	assert.Empty(t, base.Requests())

	_, err = c.Tokens.Create(t.Context(), agrenting.TokenRequest{Name: "x", ExpiresIn: 90 * time.Second})
	e, ok := errors.AsType[*agrenting.IssuedSecretError](err)
	require.True(t, ok, "no token was found in the response: %v", err)
	assert.JSONEq(t, "{}", string(e.RawResponse()))
	assert.JSONEq(t, `{"name":"x","expires_in":90}`, base.Only(t).Body)
}

func TestATokenDecodesWhateverItsMembersAre(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]agrenting.Token{
		`{"id":"t","scopes":["a"],"last4":"beef"}`: {ID: "t", Scopes: []string{"a"}, Hint: "beef"},
		`{"token_id":"t","scopes":"all"}`:          {ID: "t"},
		`{"id":{},"scopes":null,"expires_at":[]}`:  {},
	} {
		var tok agrenting.Token
		require.NoError(t, json.Unmarshal([]byte(text), &tok), text)
		assert.Equal(t, want, tok, text)
	}
}
