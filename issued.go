package agrenting

import (
	"encoding/json"
	"strings"
	"time"
)

// IssuedKey is a new key. The platform shows it only this once: store it before
// anything else.
type IssuedKey struct {
	Credential Credential
	// ID is the platform's id of the key, empty when the answer had none.
	ID string
	// AgentID is whose key it is, empty when the answer does not say.
	AgentID string
	Name    string
	// Created and Expires are zero when the answer does not say, or not
	// readably.
	Created, Expires time.Time
}

// No public document shows the answers that issue keys and tokens, so the names
// that platforms use are tried, the likeliest first. What else is in the answer
// may be missing or malformed: it never costs the key.
var (
	secretNames = []string{"api_key", "apiKey", "key", "secret", "token", "api_token", "credential", "secret_key", "value", "plaintext", "plain_text"}
	idNames     = []string{"id", "credential_id", "key_id", "api_key_id", "token_id", "uuid"}
	nestNames   = []string{"data", "credential", "credentials", "api_key", "key", "token", "agent_credential", "result"}
)

// issuedIn looks for a key in the body of an answer: in the data of its envelope,
// and beside that.
func issuedIn(body []byte, wrap func(string) Credential) (IssuedKey, bool) {
	answer := rawAnswer(body)
	if k, ok := findIssued(answer.data(), wrap); ok {
		return k, true
	}
	return findIssued(json.RawMessage(answer), wrap)
}

// findIssued looks for a key in a part of an answer.
func findIssued(data json.RawMessage, wrap func(string) Credential) (IssuedKey, bool) {
	return findIssuedIn(data, wrap, 4)
}

func findIssuedIn(data json.RawMessage, wrap func(string) Credential, depth int) (IssuedKey, bool) {
	var m map[string]json.RawMessage
	if depth == 0 || json.Unmarshal(data, &m) != nil {
		return IssuedKey{}, false
	}
	for _, name := range secretNames {
		var s string
		if json.Unmarshal(m[name], &s) != nil {
			continue
		}
		cred := wrap(strings.TrimSpace(s))
		if cred.validate() != nil {
			continue
		}
		k := IssuedKey{Credential: cred}
		k.describe(m)
		return k, true
	}
	for _, name := range nestNames {
		if k, ok := findIssuedIn(m[name], wrap, depth-1); ok {
			id := k.ID
			k.describe(m)
			k.ID = id // an id further out may be that of something else
			return k, true
		}
	}
	return IssuedKey{}, false
}

// describe fills what is still unknown.
func (k *IssuedKey) describe(m map[string]json.RawMessage) {
	if k.ID == "" {
		k.ID = firstString(m, idNames...)
	}
	if k.AgentID == "" {
		k.AgentID = firstString(m, "agent_id")
	}
	if k.Name == "" {
		k.Name = firstString(m, "name", "label")
	}
	if k.Created.IsZero() {
		k.Created = timeOf(m, "created_at", "inserted_at")
	}
	if k.Expires.IsZero() {
		k.Expires = timeOf(m, "expires_at")
	}
}

// timeOf reads an ISO 8601 time or seconds since 1970. Zero means unknown.
func timeOf(m map[string]json.RawMessage, names ...string) time.Time {
	for _, name := range names {
		s := firstString(m, name)
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return t
		}
		if t, err := time.Parse("2006-01-02T15:04:05.999999999", s); err == nil {
			return t // without a zone; the platform writes UTC
		}
		var unix int64
		if json.Unmarshal(m[name], &unix) == nil && unix > 0 && unix < 1<<40 {
			return time.Unix(unix, 0)
		}
	}
	return time.Time{}
}
