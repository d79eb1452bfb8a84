package agrenting_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestAnonymousClientRegistersAgent(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	got, err := sdktest.ClientOf(t, srv, agrenting.WithAnonymous()).Agents.Register(t.Context(), sdktest.Scribe)
	require.NoError(t, err)
	assert.Equal(t, "Scribe", got.Agent.Name)
	assert.Equal(t, "did:agrenting:scribe", got.Agent.DID)
	assert.Equal(t, json.Number("1.50"), got.Agent.BasePrice)
	assert.Empty(t, got.Agent.OwnerID)
	assert.NotEmpty(t, got.Agent.ID)
	assert.NotEmpty(t, got.Message)
	assert.Equal(t, agrenting.KindAPIKey, got.Credential.Kind())
	assert.True(t, srv.KeyAlive(got.Credential.Reveal()))

	seen := srv.Requests()[0]
	assert.Empty(t, sdktest.CredentialsOf(seen.Header))
	assert.JSONEq(t, `{"agent":{"name":"Scribe","did":"did:agrenting:scribe","capabilities":["writing"],"pricing_model":"fixed",
		"base_price":1.50,"description":"writes","category":"text","metadata":{"callback_url":"https://scribe.example"}}}`, string(seen.Body))

	profile, err := sdktest.ClientOf(t, srv, agrenting.WithCredential(got.Credential)).Agents.Get(t.Context(), got.Agent.ID)
	require.NoError(t, err)
	assert.Equal(t, got.Agent.Name, profile.Name)
}

func TestAUserRegistersOwnedAgents(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	user := srv.NewUser("Ada")
	c := sdktest.ClientOf(t, srv, agrenting.WithCredential(agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret)))
	var want []string
	for i := range 25 {
		a := sdktest.Scribe
		a.DID = fmt.Sprint("did:agrenting:scribe-", i)
		a.Sandbox = i == 0
		got, err := c.Agents.Register(t.Context(), a)
		require.NoError(t, err)
		assert.Equal(t, user.ID, got.Agent.OwnerID)
		assert.Equal(t, i == 0, got.Agent.Sandbox)
		assert.Equal(t, i == 0, got.Credential.Environment() == agrenting.Sandbox)
		want = append(want, got.Agent.ID)
	}
	srv.NewAgent(nil, agrentingtest.AgentConfig{}) // of another user
	var mine []string
	for a, err := range c.Agents.Mine(t.Context()) {
		require.NoError(t, err)
		mine = append(mine, a.ID)
	}
	assert.Equal(t, want, mine)
	n := 0
	for a, err := range c.Agents.List(t.Context()) {
		require.NoError(t, err)
		assert.NotEmpty(t, a.Raw)
		n++
	}
	assert.Equal(t, 26, n)
}

func TestLostRegistrationIsRepeatedWithSameKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := agrentingtest.NewServer(agrentingtest.InMemory())
		defer srv.Close()
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport()), agrenting.WithAnonymous())
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		srv.Fault("POST /api/v1/agents/register", agrentingtest.DropAfter())
		got, err := c.Agents.Register(t.Context(), sdktest.Scribe)
		require.NoError(t, err)
		assert.True(t, srv.KeyAlive(got.Credential.Reveal()))
		assert.EqualValues(t, 1, srv.Stats().AgentsRegistered)
		assert.Equal(t, 2, srv.Count("POST /api/v1/agents/register"))
	})
}

func TestRegistrationKeepsKeyOfUnusualResponses(t *testing.T) {
	t.Parallel()
	const rest = `"message":{"text":[1]},"legal":17}}`
	for name, body := range map[string]string{
		"odd agent":       `{"data":{"agent":17,"api_key":"` + sdktest.TestKey + `",` + rest,
		"odd members":     `{"data":{"agent":{"id":17,"name":"Scribe","base_price":"much","capabilities":"x"},"api_key":"` + sdktest.TestKey + `",` + rest,
		"no agent":        `{"data":{"api_key":"` + sdktest.TestKey + `",` + rest,
		"another name":    `{"data":{"agent":null,"key":" ` + sdktest.TestKey + `\n",` + rest,
		"yet another":     `{"data":{"agent":[],"credential":"` + sdktest.TestKey + `",` + rest,
		"and a third":     `{"data":{"secret":"` + sdktest.TestKey + `",` + rest,
		"without wrapper": `{"agent":{},"api_key":"` + sdktest.TestKey + `"}`,
		"in an object":    `{"data":{"agent":{"id":"a1"},"credential":{"id":"c1","api_key":"` + sdktest.TestKey + `"},` + rest,
		"in the agent":    `{"data":{"agent":{"id":"a1","api_key":"` + sdktest.TestKey + `"},` + rest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(sdktest.Answering(http.StatusCreated, body)), agrenting.WithAnonymous())
			require.NoError(t, err)
			defer func() { require.NoError(t, c.Close()) }()
			got, err := c.Agents.Register(t.Context(), sdktest.Scribe)
			require.NoError(t, err)
			assert.Equal(t, sdktest.TestKey, got.Credential.Reveal())
			sdktest.AssertClean(t, string(got.Agent.Raw)+got.Message, sdktest.TestKey)
			if name == "odd members" {
				assert.Equal(t, "Scribe", got.Agent.Name)
				assert.Contains(t, string(got.Agent.Raw), "much")
			}
		})
	}
}

func TestARegistrationWithoutAKeySaysSo(t *testing.T) {
	t.Parallel()
	for _, key := range []string{``, `"api_key":"",`, `"api_key":null,`, `"api_key":17,`, `"api_key":"a b ` + sdktest.TestKey + `",`} {
		c := sdktest.Keyed(t, sdktest.Answering(http.StatusCreated, `{"data":{`+key+`"agent":{"id":"a1"},"message":"stored"}}`))
		got, err := c.Agents.Register(t.Context(), sdktest.Scribe)
		require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
		sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
		require.NotNil(t, got)
		assert.Equal(t, "a1", got.Agent.ID, "the agent is there nevertheless")
		assert.True(t, got.Credential.IsZero())
	}
}

// The key is shown only in this response, so no shape of it may cost the key.
func TestRegistrationReturnsResponseWithUnknownKeyName(t *testing.T) {
	t.Parallel()
	for _, data := range []string{
		`{"data":{"agent":{"id":"a1"},"novelty":"` + sdktest.TestKey + `","message":"keep ` + sdktest.TestKey + `"}}`,
		`{"agent":"Scribe","keys":["` + sdktest.TestKey + `"]}`,
		`{"data":["` + sdktest.TestKey + `"]}`,
		`"` + sdktest.TestKey + `"`,
		`<p>Your key is ` + sdktest.TestKey + `</p>`,
	} {
		c := sdktest.Keyed(t, sdktest.Answering(http.StatusCreated, data))
		got, err := c.Agents.Register(t.Context(), sdktest.Scribe)
		require.ErrorIs(t, err, agrenting.ErrMalformedResponse, data)
		var lost *agrenting.IssuedSecretError
		require.ErrorAs(t, err, &lost, data)
		assert.Equal(t, data, string(lost.RawResponse()))
		hears := sdktest.NewCanary(sdktest.TestKey)
		hears.Hear(err)
		assert.Empty(t, hears.Leaks(), data)
		require.NotNil(t, got)
		sdktest.AssertClean(t, got.Message, sdktest.TestKey)
		assert.True(t, got.Credential.IsZero())
	}
}

func TestARefusedRegistrationIsTyped(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	got, err := sdktest.ClientOf(t, srv, agrenting.WithAnonymous()).Agents.Register(t.Context(), agrenting.AgentRegistration{Name: "x"})
	assert.Nil(t, got)
	require.ErrorIs(t, err, agrenting.ErrValidation)
	var api *agrenting.APIError
	require.ErrorAs(t, err, &api)
	assert.Equal(t, "VALIDATION_ERROR", api.Code)
	assert.Contains(t, string(api.Details), "pricing_model")
}

func TestAgentGetByIDAndDID(t *testing.T) {
	t.Parallel()
	srv := sdktest.MemoryServer(t)
	a := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe", DID: "did:web:scribe.example:a%20b"})
	c := sdktest.ClientOf(t, srv, agrenting.WithAnonymous())
	for _, id := range []string{a.ID, a.DID} {
		got, err := c.Agents.Get(t.Context(), id)
		require.NoError(t, err)
		assert.Equal(t, a.ID, got.ID)
	}
	assert.Equal(t, "/api/v1/agents/did%3Aweb%3Ascribe.example%3Aa%2520b", srv.Requests()[1].RawPath)
	_, err := c.Agents.Get(t.Context(), "did:agrenting:unknown")
	require.ErrorIs(t, err, agrenting.ErrNotFound)
	require.NotErrorIs(t, err, agrenting.ErrRouteNotFound)
	for _, id := range []string{"", ".", "..", "a/../b", "a\\b"} {
		_, err := c.Agents.Get(t.Context(), id)
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, id)
	}
	assert.Len(t, srv.Requests(), 3, "what cannot be an id is not sent")
}

func TestAgentKeepsUnknownMembers(t *testing.T) {
	t.Parallel()
	const profile = `{"id":"a1","reputation_score":"4.90","base_price":12.0,"pricing_tiers":[1],"owner_id":null}`
	got, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"data":`+profile+`}`)).Agents.Get(t.Context(), "a1")
	require.NoError(t, err)
	assert.Equal(t, json.Number("4.90"), got.ReputationScore)
	assert.Equal(t, json.Number("12.0"), got.BasePrice)
	assert.Equal(t, profile, string(got.Raw)) //nolint:testifylint // byte for byte
	_, err = sdktest.Keyed(t, sdktest.Answering(http.StatusOK, `{"data":{"id":["a1"]}}`)).Agents.Get(t.Context(), "a1")
	require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
}

func TestNumbersOfAnAgentKeepTheirDigits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]json.Number{
		`12.30`: "12.30", `"0.00000001"`: "0.00000001", `"-4"`: "-4", `null`: "", `""`: "", `1e3`: "1e3",
	} {
		var a agrenting.Agent
		profile := `{"id":"a1","base_price":` + text + `,"reputation_score":` + text + `}`
		require.NoError(t, json.Unmarshal([]byte(profile), &a), text)
		assert.Equal(t, want, a.BasePrice)
		assert.Equal(t, want, a.ReputationScore)
		assert.Equal(t, "a1", a.ID)
		assert.Equal(t, profile, string(a.Raw))
	}
	for _, text := range []string{`"much"`, `{}`, `[1]`, `true`} {
		require.Error(t, json.Unmarshal([]byte(`{"base_price":`+text+`}`), new(agrenting.Agent)), text)
	}
	for number, want := range map[json.Number]string{"12.30": `"base_price":12.30`, "": ""} {
		for _, v := range []any{agrenting.Agent{BasePrice: number}, agrenting.AgentRegistration{BasePrice: number}} {
			b, err := json.Marshal(v)
			require.NoError(t, err)
			if want == "" {
				assert.NotContains(t, string(b), "base_price")
			} else {
				assert.Contains(t, string(b), want)
			}
		}
	}
	_, err := json.Marshal(agrenting.AgentRegistration{BasePrice: "much"})
	require.Error(t, err)
}

func TestThePathOfMineCanBeChanged(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, `{"data":[{"id":"a1"}]}`)
	c := sdktest.Keyed(t, base, agrenting.WithRoutes(agrenting.Routes{MyAgents: "/api/v2/me/agents"}))
	for a, err := range c.Agents.Mine(t.Context()) {
		require.NoError(t, err)
		assert.Equal(t, "a1", a.ID)
	}
	assert.Equal(t, sdktest.APIURL+"/api/v2/me/agents", base.Only(t).URL)
}
