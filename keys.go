package agrenting

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// KeyService creates, lists, and revokes the keys of agents. Use [Client.Keys]. To
// replace the client's own key, use [Client.Rotate].
type KeyService struct{ client *Client }

// Key describes a key of an agent, see [KeyService.List]. It contains no secret. Most programs
// only use ID and Name. The platform does not document the members, and all except ID may be
// missing.
type Key struct {
	ID          string
	AgentID     string
	Name        string
	Environment Environment
	// Hint is the part of the secret that the platform shows, such as its last four
	// characters; empty if there is none.
	Hint               string
	Created, LastUsed  time.Time
	Expires, Revoked   time.Time
	hintFirst, hintEnd string
}

// UnmarshalJSON implements [json.Unmarshaler]. Members that are malformed count
// as missing.
func (k *Key) UnmarshalJSON(b []byte) error {
	var o wire.Object
	if err := json.Unmarshal(b, &o); err != nil {
		return err
	}
	*k = Key{
		ID: o.ID(), AgentID: o.String("agent_id"), Name: o.String("name", "label"),
		Environment: Environment(o.String("environment")),
		Created:     o.Time("created_at", "inserted_at"), LastUsed: o.Time("last_used_at"),
		Expires: o.Time("expires_at"), Revoked: o.Time("revoked_at"),
		hintEnd:   o.String("last4", "last_four", "suffix"),
		hintFirst: o.String("prefix", "key_prefix"),
	}
	if k.Hint = k.hintEnd; k.Hint == "" {
		k.Hint = k.hintFirst
	}
	return nil
}

// Matches reports whether the hint of a listed key fits a credential: its first
// and last characters, as far as the platform shows them, are those of the
// secret. A match is not a proof: several keys can match, and a prefix that all keys
// share matches all of them, so assume that a key is the one in use only if no other
// key matches. Matches returns false if the platform shows fewer than four characters
// in all. It does not check Revoked.
func (k *Key) Matches(c Credential) bool { return !c.IsZero() && k.fits(c.Reveal()) }

// fits reports whether the hints of a key can belong to a secret.
func (k *Key) fits(s string) bool {
	return len(k.hintEnd)+len(k.hintFirst) >= 4 && strings.HasSuffix(s, k.hintEnd) && strings.HasPrefix(s, k.hintFirst)
}

// Create creates a key of an agent (POST /api/v1/agents/:id/credentials, platform
// documentation, "Authentication"). name is a label for people; it may be empty.
// The platform shows the key only in this response, which may have any shape: if
// no key is found in it, the error is an [*IssuedSecretError], which has the
// response.
func (s *KeyService) Create(ctx context.Context, agentID, name string, opts ...CallOption) (*IssuedKey, error) {
	if _, err := pathSegment(agentID); err != nil {
		return nil, err
	}
	in := map[string]string{}
	if name != "" {
		in["name"] = name
	}
	return issue(ctx, s.client, s.client.core.keysPath(agentID), in, APIKey, opts)
}

// List yields the keys of an agent, including revoked keys if the platform lists them.
// No public document confirms the path, see [Routes].
func (s *KeyService) List(ctx context.Context, agentID string, opts ...CallOption) iter.Seq2[Key, error] {
	if _, err := pathSegment(agentID); err != nil {
		return func(yield func(Key, error) bool) { yield(Key{}, err) }
	}
	return List[Key](ctx, s.client, s.client.core.keysPath(agentID), opts...)
}

// Revoke revokes a key at once. An unknown key is [ErrNotFound], unless the response to
// an earlier attempt of the call was lost: that attempt has then revoked the key. No
// public document confirms the path, see [Routes].
func (s *KeyService) Revoke(ctx context.Context, agentID, keyID string, opts ...CallOption) error {
	if _, err := pathSegment(agentID); err != nil {
		return err
	}
	seg, err := pathSegment(keyID)
	if err != nil {
		return err
	}
	_, err = s.client.Do(ctx, http.MethodDelete, s.client.core.keysPath(agentID)+"/"+seg, nil, new(deleted), opts...)
	return err
}
