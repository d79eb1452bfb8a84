package wire

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Issued is a new key or token. The platform shows it only once.
type Issued struct {
	Secret            secret.Text
	ID, AgentID, Name string
	Created, Expires  time.Time
}

// No public document shows the answers that issue keys and tokens, so the names
// that platforms use are tried, the likeliest first. Other members may be missing
// or malformed without any effect on the key.
var (
	secretNames = []string{"api_key", "apiKey", "key", "secret", "token", "api_token", "credential", "secret_key", "value", "plaintext", "plain_text"}
	idNames     = []string{"id", "credential_id", "key_id", "api_key_id", "token_id", "uuid"}
	nestNames   = []string{"data", "credential", "credentials", "api_key", "key", "token", "agent_credential", "result"}
)

// ID returns the ID of a key or a token, "" if it has none.
func (o Object) ID() string { return o.String(idNames...) }

// Data returns the data of the envelope in a body, or the whole body if there is no
// envelope.
func Data(body []byte) json.RawMessage {
	env, err := Decode(body)
	if err != nil {
		return body
	}
	return env.Data
}

// maxNesting is how deep a new secret may be inside its answer.
const maxNesting = 4

// IssuedIn finds a new secret in the body of an answer: in the data of its envelope,
// or next to the data.
func IssuedIn(body []byte) (Issued, bool) {
	if k, ok := FindIssued(Data(body)); ok {
		return k, true
	}
	return FindIssued(body)
}

// FindIssued finds a new secret in a part of an answer.
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
			k.ID = id // an ID further out may be that of something else
			return k, true
		}
	}
	return Issued{}, false
}

// describe fills what is still unknown.
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
