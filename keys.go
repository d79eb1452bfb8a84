package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// KeyService creates, lists, revokes and rotates the keys of agents. Use
// [Client.Keys]. To rotate the client's own key, use [Client.Rotate], which
// loses nothing and fails nobody; the calls here are the bare ones.
type KeyService struct{ client *Client }

// Key describes a key of an agent. No secret is in it. The platform does not
// publish the members; all but ID may be missing.
type Key struct {
	ID          string
	AgentID     string
	Name        string
	Environment Environment
	// Hint is the part of the secret that the platform shows, where it does:
	// its last characters, or its first.
	Hint               string
	Created, LastUsed  time.Time
	Expires, Revoked   time.Time
	hintFirst, hintEnd string
}

// UnmarshalJSON implements [json.Unmarshaler]. Members that are malformed count
// as missing.
func (k *Key) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	*k = Key{
		ID: firstString(m, idNames...), AgentID: firstString(m, "agent_id"), Name: firstString(m, "name", "label"),
		Environment: Environment(firstString(m, "environment")),
		Created:     timeOf(m, "created_at", "inserted_at"), LastUsed: timeOf(m, "last_used_at"),
		Expires: timeOf(m, "expires_at"), Revoked: timeOf(m, "revoked_at"),
		hintEnd:   firstString(m, "last4", "last_four", "suffix"),
		hintFirst: firstString(m, "prefix", "key_prefix"),
	}
	if k.Hint = k.hintEnd; k.Hint == "" {
		k.Hint = k.hintFirst
	}
	return nil
}

// Matches reports whether the hint of a listed key fits a credential: its first
// and last characters, as far as the platform shows them, are those of the
// secret. It is a hint and no proof: several keys can fit, and a prefix that all
// keys share fits all of them, so take the one that fits for the one in use only
// where no other does. It is false where the platform shows fewer than four
// characters in all. It does not look at Revoked.
func (k *Key) Matches(c Credential) bool { return !c.IsZero() && k.fits(c.Reveal()) }

// fits reports whether the hints of a key can belong to a secret.
func (k *Key) fits(s string) bool {
	return len(k.hintEnd)+len(k.hintFirst) >= 4 && strings.HasSuffix(s, k.hintEnd) && strings.HasPrefix(s, k.hintFirst)
}

// Create creates a key of an agent (POST /api/v1/agents/:id/credentials,
// platform documentation, "Authentication"). name is for people; it may be
// empty. The platform shows the key only in this answer, which may have any
// shape: when no key is found in it, the error is a [*RotationError] whose
// RawAnswer has it.
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

// issue makes a call that answers with a new secret.
func issue(ctx context.Context, c *Client, path string, in any, wrap func(string) Credential, opts []CallOption) (*IssuedKey, error) {
	var raw rawAnswer
	_, err := c.Do(ctx, http.MethodPost, path, in, &raw, opts...)
	if err != nil && len(raw) == 0 {
		return nil, err
	}
	k, ok := issuedIn(raw, wrap)
	if !ok {
		return nil, unfoundSecret(path, raw, err)
	}
	return &k, nil
}

// unfoundSecret hands over an answer that has a new secret in it which was not
// found: it is shown only now. err is why it broke off, if it did, or what else
// it says. One that has nothing beside its errors is an error like any other.
func unfoundSecret(path string, answer rawAnswer, err error) error {
	_, complains := errors.AsType[*APIError](err)
	if data := answer.data(); complains && isNull(data) {
		return err
	}
	cause := fmt.Errorf("%w: POST %s: no new secret was found in the answer", ErrMalformedResponse, path)
	switch {
	case complains:
		cause = fmt.Errorf("%w, which says: %w", cause, err)
	case err != nil:
		cause = fmt.Errorf("%w, which broke off: %w", cause, err)
	}
	return &RotationError{
		Stage: StageIssue, Err: cause,
		State:  "the platform says that it has issued one: it is in the answer, under a name that the SDK does not know",
		Advice: "RawAnswer of this error has the answer; save the secret from it",
		raw:    secret.New(string(answer)),
	}
}

// List walks through the keys of an agent, revoked ones too where the platform
// lists them. No public document confirms the path, see [Routes].
func (s *KeyService) List(ctx context.Context, agentID string, opts ...CallOption) iter.Seq2[Key, error] {
	if _, err := pathSegment(agentID); err != nil {
		return func(yield func(Key, error) bool) { yield(Key{}, err) }
	}
	return List[Key](ctx, s.client, s.client.core.keysPath(agentID), opts...)
}

// Revoke revokes a key at once. An unknown one is [ErrNotFound]. No public
// document confirms the path, see [Routes].
func (s *KeyService) Revoke(ctx context.Context, agentID, keyID string, opts ...CallOption) error {
	if _, err := pathSegment(agentID); err != nil {
		return err
	}
	seg, err := pathSegment(keyID)
	if err != nil {
		return err
	}
	_, err = s.client.Do(ctx, http.MethodDelete, s.client.core.keysPath(agentID)+"/"+seg, nil, new(acknowledged), opts...)
	return err
}

// Rotate makes the bare in-place call (POST /api/v1/auth/rotate-key, platform
// documentation, "Trust & Safety"): the key in use is dead when it returns, the
// client goes on using it, and what is returned exists nowhere else. It is for
// tools that carry keys elsewhere; programs use [Client.Rotate].
func (s *KeyService) Rotate(ctx context.Context, opts ...CallOption) (*IssuedKey, error) {
	return issue(ctx, s.client, s.client.core.routes.RotateKey, nil, APIKey, opts)
}
