package record

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// KeyName is the name of the record that keeps an API key.
const KeyName = "key"

// StoredKey is an API key in a record.
type StoredKey struct {
	Credential secret.Credential
	// ID is the platform's ID of the key, which is needed to revoke the key. It is empty
	// if it is not known, as for a key from the environment.
	ID string
	// Created is when the key was issued or, if that is not known, when it was stored.
	// Expires is zero for keys that do not expire.
	Created, Expires time.Time
}

// IsZero reports whether there is no key.
func (k StoredKey) IsZero() bool { return k.Credential.IsZero() }

// Intent says what a rotation is about to do. It is saved before the rotation does it,
// so that another process can finish an interrupted rotation.
type Intent struct {
	// Key is the idempotency key of the platform call. It is the same for every attempt.
	Key string
	// Strategy and Stage have the names that package rotation defines.
	Strategy, Stage string
	// From is the fingerprint of the key to replace. Generation is the generation that
	// the rotation leads to.
	From       string
	Generation uint64
	Started    time.Time
	Attempts   int
	// Grace is how long the previous key stays live after it was replaced. GraceEnd is
	// when that time ends by the wall clock. Both are zero before the grace begins.
	Grace    time.Duration
	GraceEnd time.Time
	// Unknown is set if the intent may have created a key that is in no record: the
	// outcome of a call was unknown, or the process that made it may have died.
	Unknown bool
	// Known contains the IDs of the keys that the agent had before, if they could be
	// listed. A key that appears later was created by this rotation.
	Known []string
	// Lifeline is a session that was obtained with the old key beforehand. It can fetch
	// the response of an in-place rotation again if that response was lost.
	Lifeline secret.Credential
}

// Key is the body of a key record. A new record of the credential c is Key{Lineage:
// LineageOf(c), Series: NewSeries(), Generation: 1, Current: StoredKey{Credential: c}}.
type Key struct {
	// Agent is the ID of the agent that the key belongs to; empty if it is not known.
	Agent string
	// Lineage is [LineageOf] the first key. It does not change in rotations.
	Lineage string
	// Series is part of the names of the keys that rotations of this record create. It
	// is random, so a record that was created separately has a different series.
	Series string
	// Generation counts the keys that were Current, from 1.
	Generation uint64
	// Current is the key in use.
	Current StoredKey
	// Pending was issued by an unfinished rotation and is not yet in use.
	Pending StoredKey
	// Previous is the key that was Current before. It may still be live.
	Previous StoredKey
	// Intent is set while a rotation is unfinished.
	Intent *Intent
	// Ancestors are the fingerprints of earlier keys, the newest last. An initial key
	// that is among them is outdated and ignored.
	Ancestors []string
	// Kin are the fingerprints of other keys that belong to the same agent according to
	// the platform.
	Kin []string
}

// IsZero reports whether there is no record.
func (k Key) IsZero() bool { return k.Current.IsZero() }

// LineageOf returns the name of the lineage that begins with a key. The name reveals
// nothing about the key.
func LineageOf(first secret.Credential) string {
	sum := sha256.Sum256([]byte("agrenting key lineage\x00" + first.Reveal()))
	return hex.EncodeToString(sum[:16])
}

// NewSeries returns a random series.
func NewSeries() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// maxAncestors bounds the memory of earlier keys. It is enough for 16 years of one
// rotation every 90 days.
const maxAncestors = 64

// Clone returns a deep copy of the record.
func (k Key) Clone() Key {
	if k.Intent != nil {
		in := *k.Intent
		in.Known = slices.Clone(in.Known)
		k.Intent = &in
	}
	k.Ancestors, k.Kin = slices.Clone(k.Ancestors), slices.Clone(k.Kin)
	return k
}

// Knows reports whether a credential is or was part of the record.
func (k Key) Knows(c secret.Credential) bool {
	return k.Current.Credential.Equal(c) || k.Previous.Credential.Equal(c) || k.Pending.Credential.Equal(c) ||
		slices.Contains(k.Ancestors, c.Fingerprint())
}

// Credentials returns all credentials that the record contains.
func (k Key) Credentials() []secret.Credential {
	all := []secret.Credential{k.Current.Credential, k.Pending.Credential, k.Previous.Credential}
	if k.Intent != nil {
		all = append(all, k.Intent.Lifeline)
	}
	return slices.DeleteFunc(all, secret.Credential.IsZero)
}

// Remember returns the ancestors with fingerprint added.
func (k Key) Remember(fingerprint string) []string {
	if fingerprint == "" || slices.Contains(k.Ancestors, fingerprint) {
		return k.Ancestors
	}
	all := append(slices.Clone(k.Ancestors), fingerprint)
	return all[max(0, len(all)-maxAncestors):]
}

type storedKeyJSON struct {
	Kind    string    `json:"kind"`
	Secret  string    `json:"secret"`
	ID      string    `json:"id,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

type intentJSON struct {
	Key        string         `json:"key"`
	Strategy   string         `json:"strategy"`
	Stage      string         `json:"stage"`
	From       string         `json:"from"`
	Generation uint64         `json:"generation"`
	Started    time.Time      `json:"started"`
	Attempts   int            `json:"attempts,omitempty"`
	Grace      time.Duration  `json:"grace,omitempty"`
	GraceEnd   time.Time      `json:"grace_end,omitzero"`
	Unknown    bool           `json:"unknown,omitempty"`
	Known      []string       `json:"known,omitempty"`
	Lifeline   *storedKeyJSON `json:"lifeline,omitempty"`
}

type keyJSON struct {
	Lineage    string         `json:"lineage"`
	Series     string         `json:"series,omitempty"`
	Generation uint64         `json:"generation"`
	Current    *storedKeyJSON `json:"current"`
	Pending    *storedKeyJSON `json:"pending,omitempty"`
	Previous   *storedKeyJSON `json:"previous,omitempty"`
	Intent     *intentJSON    `json:"intent,omitempty"`
	Ancestors  []string       `json:"ancestors,omitempty"`
	Kin        []string       `json:"kin,omitempty"`
}

var keyCodec = codec[Key]{
	kind: "key", encode: encodeKey, empty: func() any { return new(keyJSON) }, decode: decodeKey,
	agent:    func(k Key) string { return k.Agent },
	setAgent: func(k Key, agent string) Key { k.Agent = agent; return k },
}

// DecodeKey decodes the data of a key record. It does not check where the record
// belongs.
func DecodeKey(data []byte) (Entry[Key], error) {
	e, _, err := keyCodec.unmarshal(data)
	return e, err
}

func encodeKey(k Key) (any, error) {
	j := keyJSON{
		Lineage: k.Lineage, Series: k.Series, Generation: k.Generation, Current: encodeStored(k.Current),
		Pending: encodeStored(k.Pending), Previous: encodeStored(k.Previous), Ancestors: k.Ancestors, Kin: k.Kin,
	}
	if in := k.Intent; in != nil {
		j.Intent = &intentJSON{
			Key: in.Key, Strategy: in.Strategy, Stage: in.Stage, From: in.From, Generation: in.Generation,
			Started: in.Started.Round(0), Attempts: in.Attempts, Grace: in.Grace, GraceEnd: in.GraceEnd.Round(0),
			Unknown: in.Unknown, Known: in.Known,
			Lifeline: encodeStored(StoredKey{Credential: in.Lifeline, Expires: in.Lifeline.Expires()}),
		}
	}
	return j, nil
}

func encodeStored(k StoredKey) *storedKeyJSON {
	if k.IsZero() {
		return nil
	}
	return &storedKeyJSON{
		Kind: k.Credential.Kind().String(), Secret: k.Credential.Reveal(), ID: k.ID,
		Created: k.Created.Round(0), Expires: k.Expires.Round(0),
	}
}

func decodeKey(body any) (Key, error) {
	fail := func(problem string) (Key, error) {
		return Key{}, fmt.Errorf("%w: %s; it was left intact", ErrInvalid, problem)
	}
	j, ok := body.(*keyJSON)
	if !ok {
		return fail("its body is malformed")
	}
	k := Key{Lineage: j.Lineage, Series: j.Series, Generation: j.Generation, Ancestors: j.Ancestors, Kin: j.Kin}
	for _, part := range []struct {
		from *storedKeyJSON
		to   *StoredKey
		name string
	}{{j.Current, &k.Current, "current key"}, {j.Pending, &k.Pending, "pending key"}, {j.Previous, &k.Previous, "previous key"}} {
		var problem string
		if *part.to, problem = decodeStored(part.from); problem != "" {
			return fail("its " + part.name + " " + problem)
		}
	}
	if k.Current.IsZero() {
		return fail("it has no current key")
	}
	if in := j.Intent; in != nil {
		lifeline, problem := decodeStored(in.Lifeline)
		if problem != "" {
			return fail("its lifeline " + problem)
		}
		k.Intent = &Intent{
			Key: in.Key, Strategy: in.Strategy, Stage: in.Stage, From: in.From, Generation: in.Generation,
			Started: in.Started, Attempts: in.Attempts, Grace: in.Grace, GraceEnd: in.GraceEnd, Unknown: in.Unknown,
			Known: in.Known, Lifeline: lifeline.Credential,
		}
	}
	return k, nil
}

func decodeStored(j *storedKeyJSON) (k StoredKey, problem string) {
	if j == nil {
		return StoredKey{}, ""
	}
	kind, ok := secret.ParseKind(j.Kind)
	if !ok {
		return StoredKey{}, "has an unknown kind"
	}
	m := secret.Material{Kind: kind, Secret: j.Secret}
	if kind == secret.KindSession {
		m.Expires = j.Expires
	}
	k = StoredKey{Credential: secret.NewCredential(m), ID: j.ID, Created: j.Created, Expires: j.Expires}
	return k, k.Credential.Problem()
}
