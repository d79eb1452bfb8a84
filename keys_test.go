package agrenting_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestKeysAreCreatedListedAndRevoked(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]agrentingtest.Option{
		"as documented":  nil,
		"under key":      {agrentingtest.WithRotateKeyField("key")},
		"odd members":    {agrentingtest.WithUnexpectedKeyFields()},
		"under secret":   {agrentingtest.WithRotateKeyField("secret")},
		"under a nested": {agrentingtest.WithRotateKeyField("credential")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewRotationWorld(t, opts...)
			c := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.UserToken(w.Owner.Secret)), agrenting.WithAgentID(w.Agent.ID))
			k, err := c.Keys.Create(t.Context(), w.Agent.ID, "second")
			require.NoError(t, err)
			require.True(t, w.Server.KeyAlive(k.Credential.Reveal()))
			assert.Equal(t, agrenting.KindAPIKey, k.Credential.Kind())

			listed := map[string]agrenting.Key{}
			for key, err := range c.Keys.List(t.Context(), w.Agent.ID) {
				require.NoError(t, err)
				listed[key.Name] = key
			}
			require.Len(t, listed, 2)
			second := listed["second"]
			assert.True(t, second.Matches(k.Credential))
			assert.False(t, second.Matches(agrenting.APIKey(w.Key.Secret)))
			assert.False(t, second.Matches(agrenting.Credential{}))
			assert.Equal(t, w.Agent.ID, second.AgentID)
			assert.WithinDuration(t, time.Now(), second.Created, time.Minute)
			assert.True(t, second.Revoked.IsZero())

			require.NoError(t, c.Keys.Revoke(t.Context(), w.Agent.ID, second.ID))
			assert.False(t, w.Server.KeyAlive(k.Credential.Reveal()))
			require.ErrorIs(t, c.Keys.Revoke(t.Context(), w.Agent.ID, second.ID), agrenting.ErrNotFound)
			for key, err := range c.Keys.List(t.Context(), w.Agent.ID) {
				require.NoError(t, err)
				assert.Equal(t, key.ID == second.ID, !key.Revoked.IsZero())
			}
		})
	}
}

func TestUnknownIssueResponseIsReturnedUnchanged(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t, agrentingtest.WithRotateKeyField("novelty"))
	c := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)))
	_, err := c.Keys.Create(t.Context(), w.Agent.ID, "")
	e, ok := errors.AsType[*agrenting.IssuedSecretError](err)
	require.True(t, ok, "%v", err)
	require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
	var raw struct {
		Data map[string]any `json:"data"`
	}
	require.NoError(t, json.Unmarshal(e.RawResponse(), &raw))
	hidden, ok := raw.Data["novelty"].(string)
	require.True(t, ok)
	assert.True(t, w.Server.KeyAlive(hidden))
	hears := sdktest.NewCanary(hidden)
	hears.Hear(err)
	assert.Empty(t, hears.Leaks())
}

func TestTruncatedIssueResponseIsReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		part := `{"data":{"api_key":"` + sdktest.TestKey + `","id":"`
		base := &sdktest.Recorder{Then: func(int, sdktest.Seen) *http.Response {
			resp := sdktest.Reply(http.StatusCreated, "")
			resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(part), iotest.ErrReader(io.ErrUnexpectedEOF)))
			return resp
		}}
		for name, issue := range map[string]func(*agrenting.Client) error{
			"create": func(c *agrenting.Client) error { _, err := c.Keys.Create(t.Context(), "a1", ""); return err },
			"token": func(c *agrenting.Client) error {
				_, err := c.Tokens.Create(t.Context(), agrenting.TokenRequest{})
				return err
			},
			"register": func(c *agrenting.Client) error { _, err := c.Agents.Register(t.Context(), sdktest.Scribe); return err },
		} {
			err := issue(sdktest.Keyed(t, base))
			var lost *agrenting.IssuedSecretError
			require.ErrorAs(t, err, &lost, name)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, name)
			assert.Equal(t, part, string(lost.RawResponse()), name)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
		}
	})
}

// A success may complain of something beside the secret that it has.
func TestIssueResponseWithErrorReturnsKey(t *testing.T) {
	t.Parallel()
	const complaint = `"errors":[{"code":"AUDIT_DELAYED","message":"later"}]`
	for name, issue := range map[string]func(*agrenting.Client) (agrenting.Credential, error){
		"create": func(c *agrenting.Client) (agrenting.Credential, error) {
			k, err := c.Keys.Create(t.Context(), "a1", "")
			return credentialOf(k), err
		},
		"token": func(c *agrenting.Client) (agrenting.Credential, error) {
			k, err := c.Tokens.Create(t.Context(), agrenting.TokenRequest{})
			return credentialOf(k), err
		},
		"register": func(c *agrenting.Client) (agrenting.Credential, error) {
			a, err := c.Agents.Register(t.Context(), sdktest.Scribe)
			if a == nil {
				return agrenting.Credential{}, err
			}
			return a.Credential, err
		},
	} {
		for place, body := range map[string]string{
			"in the data":     `{"data":{"api_key":"` + sdktest.TestKey + `"},` + complaint + `}`,
			"beside the data": `{"api_key":"` + sdktest.TestKey + `","data":null,` + complaint + `}`,
			"without data":    `{"api_key":"` + sdktest.TestKey + `",` + complaint + `}`,
		} {
			cred, err := issue(sdktest.Keyed(t, sdktest.Answering(http.StatusCreated, body)))
			require.NoError(t, err, "%s, %s", name, place)
			assert.Equal(t, sdktest.TestKey, cred.Reveal(), "%s, %s", name, place)
		}
		unknown := `{"data":{"novelty":"` + sdktest.TestKey + `"},` + complaint + `}`
		_, err := issue(sdktest.Keyed(t, sdktest.Answering(http.StatusCreated, unknown)))
		var lost *agrenting.IssuedSecretError
		require.ErrorAs(t, err, &lost, name)
		assert.Equal(t, unknown, string(lost.RawResponse()), name)
		require.ErrorContains(t, err, "AUDIT_DELAYED", name)
		sdktest.AssertClean(t, err.Error(), sdktest.TestKey)

		_, err = issue(sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"data":null,`+complaint+`}`)))
		require.NotErrorAs(t, err, &lost, name)
		var api *agrenting.APIError
		require.ErrorAs(t, err, &api, name)
		assert.Equal(t, "AUDIT_DELAYED", api.Code, name)
	}
}

func credentialOf(k *agrenting.IssuedKey) agrenting.Credential {
	if k == nil {
		return agrenting.Credential{}
	}
	return k.Credential
}

func TestKeysRefusePathsInIDs(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base)
	for _, id := range []string{"", "..", "."} {
		_, err := c.Keys.Create(t.Context(), id, "")
		require.Error(t, err, id)
		require.Error(t, c.Keys.Revoke(t.Context(), id, "k"), id)
		require.Error(t, c.Keys.Revoke(t.Context(), "a", id), id)
		for _, err := range c.Keys.List(t.Context(), id) {
			require.Error(t, err, id)
		}
	}
	assert.Empty(t, base.Requests())
}

func TestAKeyDecodesWhateverItsMembersAre(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]agrenting.Key{
		`{"id":"k","prefix":"sk_live"}`:                           {ID: "k", Hint: "sk_live"},
		`{"credential_id":"k","last_four":"beef","prefix":"sk_"}`: {ID: "k", Hint: "beef"},
		`{"id":17,"name":{},"created_at":true,"last4":[]}`:        {},
		`{"id":"k","revoked_at":"2026-03-01T12:00:00Z"}`:          {ID: "k", Revoked: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
	} {
		var k agrenting.Key
		require.NoError(t, json.Unmarshal([]byte(text), &k), text)
		assert.Equal(t, want.ID, k.ID, text)
		assert.Equal(t, want.Hint, k.Hint, text)
		assert.Equal(t, want.Revoked, k.Revoked, text)
	}
	var k agrenting.Key
	require.Error(t, json.Unmarshal([]byte(`[]`), &k))
	assert.False(t, agrenting.KeyEndingIn("abc").Fits("xxabc"), "three characters are not a hint")
	assert.False(t, (&agrenting.Key{}).Fits("anything"))
}

func TestKeyMatchesByVisiblePart(t *testing.T) {
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
		var k agrenting.Key
		require.NoError(t, json.Unmarshal([]byte(`{"id":"k",`+members+`}`), &k))
		assert.Equal(t, want, k.Matches(agrenting.APIKey(text)), members)
		assert.False(t, k.Matches(agrenting.Credential{}), members)
	}
}
