package record

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/agrenting/agrenting-go/internal/seal"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// SessionName returns the name of the record that keeps the sessions of a
// lineage of keys at an origin.
func SessionName(origin, lineage string) string {
	sum := sha256.Sum256([]byte("agrenting session name\x00" + origin + "\x00" + lineage))
	return "session." + hex.EncodeToString(sum[:8])
}

// Session is the body of a session record. It contains the latest session, and until
// when no process may call the authenticate endpoint.
type Session struct {
	// Agent is the ID of the agent that the session belongs to; empty if it is not
	// known.
	Agent string `json:"-"`
	// Key is the fingerprint of the key that the session was obtained with.
	Key string `json:"-"`

	Token string `json:"token,omitempty"`
	// Expires is by the platform's clock, which was ahead of the local clock by Skew.
	Expires time.Time     `json:"expires,omitzero"`
	Skew    time.Duration `json:"skew,omitempty"`
	Issued  time.Time     `json:"issued,omitzero"`
	// NotBefore is when the endpoint may be called again, after Failures consecutive
	// failures. Locked is set if the address was locked out, Refused if the key was
	// refused.
	NotBefore time.Time `json:"not_before,omitzero"`
	Failures  int       `json:"failures,omitempty"`
	Locked    bool      `json:"locked,omitempty"`
	Refused   bool      `json:"refused,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	// Exchanges contains the times of the exchanges in the last minute, by the clocks
	// of the processes that made them.
	Exchanges []time.Time `json:"exchanges,omitempty"`
}

// sessionJSON is sealed under the API key, so that access to a store of sessions is
// useless without the key.
type sessionJSON struct {
	Key    string `json:"key,omitempty"`
	Sealed []byte `json:"sealed,omitempty"`
}

// sessionCodec encodes the sessions of one key. If a session belongs to another key or
// cannot be unsealed, the result is an empty session, which will be replaced.
func sessionCodec(name string, key secret.Credential) codec[Session] {
	s := seal.Sealer{Secret: secret.New(key.Reveal()), Info: "agrenting session v2 " + name}
	return codec[Session]{
		kind: "session",
		encode: func(v Session) (any, error) {
			if v.Token == "" && v.Failures == 0 && len(v.Exchanges) == 0 {
				return sessionJSON{}, nil
			}
			plain, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			sealed, err := s.Seal(plain)
			if err != nil {
				return nil, err
			}
			return sessionJSON{Key: key.Fingerprint(), Sealed: sealed}, nil
		},
		empty: func() any { return new(sessionJSON) },
		decode: func(body any) (Session, error) {
			j, ok := body.(*sessionJSON)
			if !ok {
				return Session{}, fmt.Errorf("%w: its body is malformed; it was left intact", ErrInvalid)
			}
			if j.Key != key.Fingerprint() {
				return Session{}, nil
			}
			plain, err := s.Open(j.Sealed)
			if err != nil {
				return Session{}, nil //nolint:nilerr // it will be replaced
			}
			var v Session
			if json.Unmarshal(plain, &v) != nil {
				return Session{}, nil //nolint:nilerr // it will be replaced
			}
			v.Key = j.Key
			return v, nil
		},
		agent:    func(v Session) string { return v.Agent },
		setAgent: func(v Session, agent string) Session { v.Agent = agent; return v },
	}
}
