package agrenting

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestKeysAreCreatedListedAndRevoked(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrentingtest.Option{
		"as documented":  nil,
		"under key":      {agrentingtest.WithRotateKeyField("key")},
		"odd members":    {agrentingtest.WithBrokenKeyAnswers()},
		"under secret":   {agrentingtest.WithRotateKeyField("secret")},
		"under a nested": {agrentingtest.WithRotateKeyField("credential")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newRotationWorld(t, opts...)
			c := clientOf(t, w.srv, WithCredential(UserToken(w.owner.Secret)), WithAgentID(w.agent.ID))
			k, err := c.Keys.Create(t.Context(), w.agent.ID, "second")
			require.NoError(t, err)
			require.True(t, w.srv.KeyAlive(k.Credential.Reveal()))
			assert.Equal(t, KindAPIKey, k.Credential.Kind())

			listed := map[string]Key{}
			for key, err := range c.Keys.List(t.Context(), w.agent.ID) {
				require.NoError(t, err)
				listed[key.Name] = key
			}
			require.Len(t, listed, 2)
			second := listed["second"]
			assert.True(t, second.Matches(k.Credential))
			assert.False(t, second.Matches(APIKey(w.key.Secret)))
			assert.False(t, second.Matches(Credential{}))
			assert.Equal(t, w.agent.ID, second.AgentID)
			assert.WithinDuration(t, time.Now(), second.Created, time.Minute)
			assert.True(t, second.Revoked.IsZero())

			require.NoError(t, c.Keys.Revoke(t.Context(), w.agent.ID, second.ID))
			assert.False(t, w.srv.KeyAlive(k.Credential.Reveal()))
			require.ErrorIs(t, c.Keys.Revoke(t.Context(), w.agent.ID, second.ID), ErrNotFound)
			for key, err := range c.Keys.List(t.Context(), w.agent.ID) {
				require.NoError(t, err)
				assert.Equal(t, key.ID == second.ID, !key.Revoked.IsZero())
			}
		})
	}
}

func TestAnUnknownAnswerIsHandedOverAsItIs(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t, agrentingtest.WithRotateKeyField("novelty"))
	c := clientOf(t, w.srv, WithCredential(APIKey(w.key.Secret)))
	_, err := c.Keys.Create(t.Context(), w.agent.ID, "")
	e, ok := errors.AsType[*IssuedSecretError](err)
	require.True(t, ok, "%v", err)
	require.ErrorIs(t, err, ErrMalformedResponse)
	var raw struct {
		Data map[string]any `json:"data"`
	}
	require.NoError(t, json.Unmarshal(e.RawAnswer(), &raw))
	hidden, ok := raw.Data["novelty"].(string)
	require.True(t, ok)
	assert.True(t, w.srv.KeyAlive(hidden))
	hears := newCanary(hidden)
	hears.hear(err)
	assert.Empty(t, hears.leaks())
}

func TestAnAnswerWithAKeyThatBreaksOffIsHandedOverAsFarAsItCame(t *testing.T) {
	t.Parallel()
	part := `{"data":{"api_key":"` + testKey + `","id":"`
	base := &recorder{then: func(int, seen) *http.Response {
		resp := reply(http.StatusCreated, "")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(part), errReader{io.ErrUnexpectedEOF}))
		return resp
	}}
	for name, issue := range map[string]func(*Client) error{
		"create":   func(c *Client) error { _, err := c.Keys.Create(t.Context(), "a1", ""); return err },
		"token":    func(c *Client) error { _, err := c.Tokens.Create(t.Context(), TokenRequest{}); return err },
		"register": func(c *Client) error { _, err := c.Agents.Register(t.Context(), scribe); return err },
	} {
		err := issue(keyed(t, base))
		var lost *IssuedSecretError
		require.ErrorAs(t, err, &lost, name)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
		assert.Equal(t, part, string(lost.RawAnswer()), name)
		assertClean(t, err.Error(), testKey)
	}
}

// A success may complain of something beside the secret that it has.
func TestAnAnswerWithAKeyAndAnErrorHandsTheKeyOver(t *testing.T) {
	t.Parallel()
	const complaint = `"errors":[{"code":"AUDIT_DELAYED","message":"later"}]`
	for name, issue := range map[string]func(*Client) (Credential, error){
		"create": func(c *Client) (Credential, error) {
			k, err := c.Keys.Create(t.Context(), "a1", "")
			return credentialOf(k), err
		},
		"token": func(c *Client) (Credential, error) {
			k, err := c.Tokens.Create(t.Context(), TokenRequest{})
			return credentialOf(k), err
		},
		"register": func(c *Client) (Credential, error) {
			a, err := c.Agents.Register(t.Context(), scribe)
			if a == nil {
				return Credential{}, err
			}
			return a.Credential, err
		},
	} {
		for place, body := range map[string]string{
			"in the data":     `{"data":{"api_key":"` + testKey + `"},` + complaint + `}`,
			"beside the data": `{"api_key":"` + testKey + `","data":null,` + complaint + `}`,
			"without data":    `{"api_key":"` + testKey + `",` + complaint + `}`,
		} {
			cred, err := issue(keyed(t, answering(http.StatusCreated, body)))
			require.NoError(t, err, "%s, %s", name, place)
			assert.Equal(t, testKey, cred.Reveal(), "%s, %s", name, place)
		}
		unknown := `{"data":{"novelty":"` + testKey + `"},` + complaint + `}`
		_, err := issue(keyed(t, answering(http.StatusCreated, unknown)))
		var lost *IssuedSecretError
		require.ErrorAs(t, err, &lost, name)
		assert.Equal(t, unknown, string(lost.RawAnswer()), name)
		require.ErrorContains(t, err, "AUDIT_DELAYED", name)
		assertClean(t, err.Error(), testKey)

		_, err = issue(keyed(t, answering(http.StatusOK, `{"data":null,`+complaint+`}`)))
		require.NotErrorAs(t, err, &lost, name)
		var api *APIError
		require.ErrorAs(t, err, &api, name)
		assert.Equal(t, "AUDIT_DELAYED", api.Code, name)
	}
}

func credentialOf(k *IssuedKey) Credential {
	if k == nil {
		return Credential{}
	}
	return k.Credential
}

func TestKeysRefuseIdsThatLeadElsewhere(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c := keyed(t, base)
	for _, id := range []string{"", "..", "."} {
		_, err := c.Keys.Create(t.Context(), id, "")
		require.Error(t, err, id)
		require.Error(t, c.Keys.Revoke(t.Context(), id, "k"), id)
		require.Error(t, c.Keys.Revoke(t.Context(), "a", id), id)
		for _, err := range c.Keys.List(t.Context(), id) {
			require.Error(t, err, id)
		}
	}
	assert.Empty(t, base.requests())
}

func TestAKeyDecodesWhateverItsMembersAre(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Key{
		`{"id":"k","prefix":"sk_live"}`:                           {ID: "k", Hint: "sk_live"},
		`{"credential_id":"k","last_four":"beef","prefix":"sk_"}`: {ID: "k", Hint: "beef"},
		`{"id":17,"name":{},"created_at":true,"last4":[]}`:        {},
		`{"id":"k","revoked_at":"2026-03-01T12:00:00Z"}`:          {ID: "k", Revoked: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
	} {
		var k Key
		require.NoError(t, json.Unmarshal([]byte(text), &k), text)
		assert.Equal(t, want.ID, k.ID, text)
		assert.Equal(t, want.Hint, k.Hint, text)
		assert.Equal(t, want.Revoked, k.Revoked, text)
	}
	var k Key
	require.Error(t, json.Unmarshal([]byte(`[]`), &k))
	assert.False(t, (&Key{hintEnd: "abc"}).fits("xxabc"), "three characters are no hint")
	assert.False(t, (&Key{}).fits("anything"))
}

func TestAKeyMatchesByWhatIsShownOfIt(t *testing.T) {
	t.Parallel()
	const text = "sk_sandbox_0a1b2c3d"
	for members, want := range map[string]bool{
		`"last4":"2c3d"`:                         true,
		`"last4":"2c3e"`:                         false,
		`"prefix":"sk_sandbox_0a"`:               true,
		`"prefix":"sk_sandbox_0b"`:               false,
		`"prefix":"sk_s","last4":"2c3d"`:         true,
		`"prefix":"sk_l","last4":"2c3d"`:         false,
		`"suffix":"c3d"`:                         false,
		`"name":"sk_sandbox_0a1b2c3d"`:           false,
		`"last4":"2c3d","revoked_at":1772366400`: true,
	} {
		var k Key
		require.NoError(t, json.Unmarshal([]byte(`{"id":"k",`+members+`}`), &k))
		assert.Equal(t, want, k.Matches(APIKey(text)), members)
		assert.False(t, k.Matches(Credential{}), members)
	}
}
