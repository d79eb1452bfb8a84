package agrenting

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"time"
)

// TokenService creates, lists, and revokes the tokens of a user. Use [Client.Tokens].
// The calls need a user token.
type TokenService struct{ client *Client }

// Token describes a user token, see [TokenService.List]. It contains no secret. Most programs
// only use ID and Scopes, for example ["agents:read"]. All members except ID may be missing.
type Token struct {
	ID                string
	Name              string
	Scopes            []string
	Hint              string
	Created, LastUsed time.Time
	Expires           time.Time
}

// UnmarshalJSON implements [json.Unmarshaler]. Members that are malformed count
// as missing.
func (t *Token) UnmarshalJSON(b []byte) error {
	var k Key
	if err := json.Unmarshal(b, &k); err != nil {
		return err
	}
	var m struct {
		Scopes json.RawMessage `json:"scopes"`
	}
	_ = json.Unmarshal(b, &m)
	*t = Token{ID: k.ID, Name: k.Name, Hint: k.Hint, Created: k.Created, LastUsed: k.LastUsed, Expires: k.Expires}
	_ = json.Unmarshal(m.Scopes, &t.Scopes)
	return nil
}

// TokenRequest describes a token to create.
type TokenRequest struct {
	// Name is a label for people.
	Name string
	// Scopes limit the token, such as "agents:read" or "hire:create". The
	// platform's documents disagree on their names, so the SDK does not check them. If
	// there are none, the platform decides.
	Scopes []string
	// ExpiresIn is the token's lifetime, sent in whole seconds. If it is zero, the
	// platform decides.
	ExpiresIn time.Duration
}

// Create creates a user token (POST /api/v1/user/tokens, platform documentation,
// "User Tokens"). The platform shows it only in this response; if no token is
// found in it, the error is an [*IssuedSecretError], which has the response.
func (s *TokenService) Create(ctx context.Context, r TokenRequest, opts ...CallOption) (*IssuedKey, error) {
	if r.ExpiresIn < 0 || (r.ExpiresIn > 0 && r.ExpiresIn < time.Second) {
		return nil, optionError("TokenRequest", "a lifetime is at least a second; 0 leaves it to the platform")
	}
	in := struct {
		Name      string   `json:"name"`
		Scopes    []string `json:"scopes,omitempty"`
		ExpiresIn int64    `json:"expires_in,omitempty"`
	}{r.Name, slices.Clone(r.Scopes), int64(r.ExpiresIn / time.Second)}
	return issue(ctx, s.client, s.client.core.routes.Tokens, in, UserToken, opts)
}

// List yields the tokens of the user.
func (s *TokenService) List(ctx context.Context, opts ...CallOption) iter.Seq2[Token, error] {
	return List[Token](ctx, s.client, s.client.core.routes.Tokens, opts...)
}

// Revoke revokes a token at once. An unknown token is [ErrNotFound], unless the response
// to an earlier attempt of the call was lost: that attempt has then revoked the token.
func (s *TokenService) Revoke(ctx context.Context, id string, opts ...CallOption) error {
	seg, err := pathSegment(id)
	if err != nil {
		return err
	}
	_, err = s.client.Do(ctx, http.MethodDelete, s.client.core.routes.Tokens+"/"+seg, nil, new(deleted), opts...)
	return err
}
