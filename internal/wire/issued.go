package wire

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Issued is a new key or token, such as {Secret: secret.New("k1"), ID: "key_1"}. The
// platform shows it only once. Most programs only read Secret and ID.
type Issued struct {
	Secret            secret.Text
	ID, AgentID, Name string
	Created, Expires  time.Time
}

// Public documents do not show the responses that issue keys and tokens. So the
// names that platforms use are tried, the most likely ones first. If other members
// are missing or malformed, that does not affect the key.
var (
	secretNames = []string{"api_key", "apiKey", "key", "secret", "token", "api_token", "credential", "secret_key", "value", "plaintext", "plain_text"}
	idNames     = []string{"id", "credential_id", "key_id", "api_key_id", "token_id", "uuid"}
	nestNames   = []string{"data", "credential", "credentials", "api_key", "key", "token", "agent_credential", "result"}
)

// ID returns the ID of a key or a token, or "" if it has none.
func (o Object) ID() string { return o.String(idNames...) }

// Data returns the data of the envelope in a body, or the whole body if it is not in
// an envelope.
func Data(body []byte) json.RawMessage {
	env, err := Decode(body)
	if err != nil {
		return body
	}
	return env.Data
}

// maxNesting is how deeply a new secret may be nested in its response.
const maxNesting = 4

// IssuedIn finds a new secret in the body of a response: in the data of its
// envelope, or next to the data.
func IssuedIn(body []byte) (Issued, bool) {
	if k, ok := FindIssued(Data(body)); ok {
		return k, true
	}
	return FindIssued(body)
}

// FindIssued finds a new secret in a part of a response.
func FindIssued(part json.RawMessage) (Issued, bool) { return findIssued(part, maxNesting) }

func findIssued(part json.RawMessage, depth int) (Issued, bool) {
	var o Object
	if depth == 0 || json.Unmarshal(part, &o) != nil {
		return Issued{}, false
	}
	for _, name := range secretNames {
		var s string
		if json.Unmarshal(o[name], &s) != nil {
			continue
		}
		if s = strings.TrimSpace(s); secret.Problem(s) != "" {
			continue
		}
		k := Issued{Secret: secret.New(strings.Clone(s))}
		k.describe(o)
		return k, true
	}
	for _, name := range nestNames {
		if k, ok := findIssued(o[name], depth-1); ok {
			id := k.ID
			k.describe(o)
			k.ID = id // an outer ID may belong to another resource
			return k, true
		}
	}
	return Issued{}, false
}

// describe fills in the fields that are still unknown.
func (k *Issued) describe(o Object) {
	if k.ID == "" {
		k.ID = o.ID()
	}
	if k.AgentID == "" {
		k.AgentID = o.String("agent_id")
	}
	if k.Name == "" {
		k.Name = o.String("name", "label")
	}
	if k.Created.IsZero() {
		k.Created = o.Time("created_at", "inserted_at")
	}
	if k.Expires.IsZero() {
		k.Expires = o.Time("expires_at")
	}
}
