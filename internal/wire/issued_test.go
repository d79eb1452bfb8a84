package wire

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

const issuedSecret = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"

func TestFindIssuedKnowsEveryName(t *testing.T) {
	t.Parallel()
	for _, name := range secretNames {
		k, ok := FindIssued(json.RawMessage(`{"` + name + `":" ` + issuedSecret + `\n","id":"k-1"}`))
		require.True(t, ok, name)
		assert.Equal(t, issuedSecret, k.Secret.Reveal(), name)
		assert.Equal(t, "k-1", k.ID, name)
	}
	for _, nest := range nestNames {
		for _, name := range secretNames {
			k, ok := FindIssued(json.RawMessage(`{"id":"outer","agent_id":"a-1","` + nest + `":{"` + name + `":"` + issuedSecret + `","key_id":"k-1"}}`))
			require.True(t, ok, "%s.%s", nest, name)
			assert.Equal(t, issuedSecret, k.Secret.Reveal())
			assert.Equal(t, "k-1", k.ID, "an ID further out may be that of something else")
			assert.Equal(t, "a-1", k.AgentID)
		}
	}
}

func TestFindIssuedReadsMetadata(t *testing.T) {
	t.Parallel()
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]Issued{
		`{"api_key":"S","id":"k","agent_id":"a","name":"n","created_at":"2026-03-01T12:00:00Z","expires_at":"2026-03-01T12:00:00Z"}`: {
			ID: "k", AgentID: "a", Name: "n", Created: day, Expires: day,
		},
		`{"api_key":"S","credential_id":"k","label":"n","inserted_at":"2026-03-01T12:00:00"}`:      {ID: "k", Name: "n", Created: day},
		`{"api_key":"S","uuid":"k","created_at":1772366400,"expires_at":1772366400}`:               {ID: "k", Created: day, Expires: day},
		`{"data":{"credential":{"api_key":{"value":"S"}}}}`:                                        {},
		`{"key":{"id":"k","secret":"S"},"agent_id":"a"}`:                                           {ID: "k", AgentID: "a"},
		`{"api_key":"S","created_at":"yesterday","expires_at":null,"id":"","name":"  "}`:           {},
		`{"api_key":"not a key, it has blanks","secret":"S"}`:                                      {},
		`{"token":{"api_key":"S"},"api_key":null,"key":17,"secret":["x"],"credential":{"id":"c"}}`: {},
	} {
		k, ok := FindIssued(json.RawMessage(strings.ReplaceAll(text, `"S"`, `"`+issuedSecret+`"`)))
		require.True(t, ok, text)
		assert.Equal(t, issuedSecret, k.Secret.Reveal(), text)
		assert.Equal(t, want.ID, k.ID, text)
		assert.Equal(t, want.AgentID, k.AgentID, text)
		assert.Equal(t, want.Name, k.Name, text)
		assert.True(t, want.Created.Equal(k.Created), "%s: %v", text, k.Created)
		assert.True(t, want.Expires.Equal(k.Expires), "%s: %v", text, k.Expires)
	}
}

func TestMalformedMemberKeepsTheKey(t *testing.T) {
	t.Parallel()
	fields := []string{"id", "agent_id", "name", "label", "created_at", "inserted_at", "expires_at", "uuid", "key_id", "extra"}
	values := []string{`null`, `17`, `-1.5e300`, `true`, `""`, `" "`, `[]`, `{}`, `[{"a":[null]}]`, `{"value":42}`, `"\u0000"`, `"2026-99-99"`}
	good := map[string]json.RawMessage{"api_key": json.RawMessage(`"` + issuedSecret + `"`)}
	for _, f := range fields {
		for _, v := range values {
			m := maps.Clone(good)
			m[f] = json.RawMessage(v)
			b, err := json.Marshal(m)
			require.NoError(t, err)
			k, ok := FindIssued(b)
			require.True(t, ok, string(b))
			assert.Equal(t, issuedSecret, k.Secret.Reveal())
		}
	}
}

func TestFindIssuedRejectsOtherJSON(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		``, `null`, `[]`, `"` + issuedSecret + `"`, `{}`, `{"api_key":""}`, `{"api_key":"a b"}`, `{"api_key":"\u00e9\u00e8"}`,
		`{"id":"` + issuedSecret + `"}`, `{"data":[{"api_key":"` + issuedSecret + `"}]}`, `{`,
		`{"data":{"data":{"data":{"data":{"api_key":"` + issuedSecret + `"}}}}}`,
	} {
		_, ok := FindIssued(json.RawMessage(text))
		assert.False(t, ok, text)
	}
}

// FuzzIssued checks that no response panics, that a secret that is found is valid, and
// that a key is found next to any other members.
func FuzzIssued(f *testing.F) {
	for _, seed := range []string{
		`{"api_key":"` + issuedSecret + `","id":"k"}`, `{"data":{"key":{"secret":"x"}}}`, `{"id":{},"created_at":-1.5}`,
		`null`, `[]`, `{"api_key":17}`, `{"expires_at":1e400}`, `{"api_key":"a","api_key":"b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, ok := FindIssued(b); ok {
			if problem := secret.Problem(k.Secret.Reveal()); problem != "" {
				t.Fatalf("an invalid secret was found: it %s", problem)
			}
		}
		var m map[string]json.RawMessage
		if json.Unmarshal(b, &m) != nil || m == nil {
			return
		}
		m["api_key"] = json.RawMessage(`"` + issuedSecret + `"`)
		with, err := json.Marshal(m)
		if err != nil {
			return // not JSON
		}
		k, ok := FindIssued(with)
		if !ok || k.Secret.Reveal() != issuedSecret {
			t.Fatalf("the key was not found next to the other members")
		}
	})
}
