package agrenting

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Revision names one state of a key store's record; it is opaque, and empty
// where there is no record. Stores must never give two states one revision.
type Revision string

// KeyStore keeps the record of one key through its whole life. With a store,
// the store is the truth: an explicit or environment credential only seeds it
// while it is empty. Set it by [WithKeyStore].
//
// Implementations must be safe for concurrent use, and a Save that returned
// must survive a crash. Package agrentingtest/storetest has a conformance suite.
type KeyStore interface {
	// Load returns the record and its revision. An empty store is an error
	// that matches [ErrNoCredential].
	Load(ctx context.Context) (KeyRecord, Revision, error)
	// Save replaces the record if it still has the previous revision ("" for
	// an empty store), and returns the new one. If it has not, nothing is
	// changed and the error matches [ErrConflictingWrite]. A store that cannot
	// be written returns [ErrReadOnlyStore].
	Save(ctx context.Context, rec KeyRecord, previous Revision) (Revision, error)
}

// KeyWatcher is implemented by stores that tell of changes, so that other
// processes' rotations are adopted before the old key is used again. The
// sequence begins with the record as it is, if there is one, and ends when ctx
// does.
type KeyWatcher interface {
	KeyStore
	Watch(ctx context.Context) iter.Seq2[KeyRecord, error]
}

// StoredKey is a key in a store.
type StoredKey struct {
	Credential Credential
	// ID is the platform's id of the key, by which it is revoked; empty when
	// it is not known, as with a key from the environment.
	ID string
	// AgentID is whose key it is; empty when not known.
	AgentID string
	// Created is when it was issued, or, where that is not known, when it came
	// into the store. Expires is zero for keys that do not expire.
	Created, Expires time.Time
}

// IsZero reports whether there is no key.
func (k StoredKey) IsZero() bool { return k.Credential.IsZero() }

// Intent says that a rotation is under way: what is going to happen, written
// down before it does. It is a lease: whoever holds it extends it, and once it
// has run out, another process may take it over and finish what was begun.
type Intent struct {
	// Key is the idempotency key of the platform call, the same on every
	// attempt.
	Key      string
	Strategy Strategy
	Stage    Stage
	// From is the fingerprint of the key to replace, Generation the one that
	// the rotation leads to.
	From       string
	Generation uint64
	// Owner is a random name of the process that holds the lease.
	Owner    string
	Lease    time.Time
	Started  time.Time
	Attempts int
	// GraceEnd is when the previous key may be revoked; zero before there is one.
	GraceEnd time.Time
	// Known are the ids of the keys that the agent had before, where they could
	// be listed: what appears later is the work of this rotation.
	Known []string
	// Lifeline is a session bought with the old key beforehand. It can fetch
	// the answer of an in-place rotation again when that was lost.
	Lifeline Credential
}

// KeyRecord is what a store keeps. It redacts itself wherever it is printed;
// [KeyRecord.Encode] is for stores.
type KeyRecord struct {
	// Generation counts the keys that were Current, from 1.
	Generation uint64
	// Current is the key in use.
	Current StoredKey
	// Pending was issued by the rotation under way and is not yet verified.
	Pending StoredKey
	// Previous was Current before, and may still be live.
	Previous StoredKey
	// Intent is set while a rotation is under way.
	Intent *Intent
	// Ancestors are fingerprints of earlier keys, the newest last. A seed among
	// them is out of date and ignored.
	Ancestors []string
}

// maxAncestors bounds the memory of earlier keys: 16 years of one each 90 days.
const maxAncestors = 64

// clone copies what the record points to.
func (r KeyRecord) clone() KeyRecord {
	if r.Intent != nil {
		in := *r.Intent
		in.Known = slices.Clone(in.Known)
		r.Intent = &in
	}
	r.Ancestors = slices.Clone(r.Ancestors)
	return r
}

// wallNow is the time for a record, by the wall clock alone: it goes on while a
// machine sleeps, and others know no other.
func wallNow() time.Time { return time.Now().Round(0) }

// knows reports whether a credential is or was part of the record.
func (r KeyRecord) knows(c Credential) bool {
	return r.Current.Credential.Equal(c) || r.Previous.Credential.Equal(c) || r.Pending.Credential.Equal(c) ||
		slices.Contains(r.Ancestors, c.Fingerprint())
}

// credentials are all that the record holds.
func (r KeyRecord) credentials() []Credential {
	all := []Credential{r.Current.Credential, r.Pending.Credential, r.Previous.Credential}
	if r.Intent != nil {
		all = append(all, r.Intent.Lifeline)
	}
	return slices.DeleteFunc(all, Credential.IsZero)
}

// remember returns the ancestors with one more.
func (r KeyRecord) remember(fingerprint string) []string {
	if fingerprint == "" || slices.Contains(r.Ancestors, fingerprint) {
		return r.Ancestors
	}
	all := append(slices.Clone(r.Ancestors), fingerprint)
	return all[max(0, len(all)-maxAncestors):]
}

// recordVersion is the version of the encoding. Decoding refuses others
// unharmed, so that an older program does not destroy what a newer one wrote.
const recordVersion = 1

type encodedKey struct {
	Kind    string    `json:"kind"`
	Secret  string    `json:"secret"`
	ID      string    `json:"id,omitempty"`
	AgentID string    `json:"agent_id,omitempty"`
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

type encodedIntent struct {
	Key        string      `json:"key"`
	Strategy   string      `json:"strategy"`
	Stage      Stage       `json:"stage"`
	From       string      `json:"from"`
	Generation uint64      `json:"generation"`
	Owner      string      `json:"owner"`
	Lease      time.Time   `json:"lease"`
	Started    time.Time   `json:"started"`
	Attempts   int         `json:"attempts,omitempty"`
	GraceEnd   time.Time   `json:"grace_end,omitzero"`
	Known      []string    `json:"known,omitempty"`
	Lifeline   *encodedKey `json:"lifeline,omitempty"`
}

type encodedRecord struct {
	Version    int            `json:"version"`
	Generation uint64         `json:"generation"`
	Current    *encodedKey    `json:"current"`
	Pending    *encodedKey    `json:"pending,omitempty"`
	Previous   *encodedKey    `json:"previous,omitempty"`
	Intent     *encodedIntent `json:"intent,omitempty"`
	Ancestors  []string       `json:"ancestors,omitempty"`
}

// Encode returns the record as JSON, secrets in clear. It is for stores that
// keep bytes: put the result only where secrets belong, or wrap the store by
// [Sealed].
func (r KeyRecord) Encode() ([]byte, error) {
	e := encodedRecord{
		Version: recordVersion, Generation: r.Generation, Current: encodeKey(r.Current),
		Pending: encodeKey(r.Pending), Previous: encodeKey(r.Previous), Ancestors: r.Ancestors,
	}
	if in := r.Intent; in != nil {
		e.Intent = &encodedIntent{
			Key: in.Key, Strategy: in.Strategy.String(), Stage: in.Stage, From: in.From,
			Generation: in.Generation, Owner: in.Owner, Lease: in.Lease.Round(0), Started: in.Started.Round(0),
			Attempts: in.Attempts, GraceEnd: in.GraceEnd.Round(0), Known: in.Known, Lifeline: encodeKey(StoredKey{Credential: in.Lifeline}),
		}
	}
	return json.MarshalIndent(e, "", "  ")
}

func encodeKey(k StoredKey) *encodedKey {
	if k.IsZero() {
		return nil
	}
	e := &encodedKey{
		Kind: k.Credential.Kind().String(), Secret: k.Credential.Reveal(), ID: k.ID, AgentID: k.AgentID,
		Created: k.Created.Round(0), Expires: k.Expires.Round(0),
	}
	if k.Credential.Kind() == KindSession && !k.Credential.Expires().IsZero() {
		e.Expires = k.Credential.Expires()
	}
	return e
}

// DecodeKeyRecord reads what [KeyRecord.Encode] wrote. A record of another
// version is refused; nothing of the input is in the error.
func DecodeKeyRecord(b []byte) (KeyRecord, error) {
	var e encodedRecord
	if err := json.Unmarshal(b, &e); err != nil {
		return KeyRecord{}, fmt.Errorf("%w: the stored record is not JSON, it may be damaged or sealed", ErrInvalidCredential)
	}
	if e.Version != recordVersion {
		return KeyRecord{}, fmt.Errorf("%w: the stored record has version %d and this program knows version %d; "+
			"use the program that wrote it, or a newer one", ErrInvalidCredential, e.Version, recordVersion)
	}
	rec := KeyRecord{Generation: e.Generation, Ancestors: e.Ancestors}
	for _, k := range []struct {
		from *encodedKey
		to   *StoredKey
		name string
	}{{e.Current, &rec.Current, "current"}, {e.Pending, &rec.Pending, "pending"}, {e.Previous, &rec.Previous, "previous"}} {
		var err error
		if *k.to, err = decodeKey(k.from); err != nil {
			return KeyRecord{}, fmt.Errorf("the stored record's %s key: %w", k.name, err)
		}
	}
	if rec.Current.IsZero() {
		return KeyRecord{}, fmt.Errorf("%w: the stored record has no current key", ErrInvalidCredential)
	}
	if in := e.Intent; in != nil {
		strategy, err := parseStrategy(in.Strategy)
		if err != nil {
			return KeyRecord{}, err
		}
		lifeline, err := decodeKey(in.Lifeline)
		if err != nil {
			return KeyRecord{}, fmt.Errorf("the stored record's lifeline: %w", err)
		}
		rec.Intent = &Intent{
			Key: in.Key, Strategy: strategy, Stage: in.Stage, From: in.From, Generation: in.Generation,
			Owner: in.Owner, Lease: in.Lease, Started: in.Started, Attempts: in.Attempts, GraceEnd: in.GraceEnd,
			Known: in.Known, Lifeline: lifeline.Credential,
		}
	}
	return rec, nil
}

func decodeKey(e *encodedKey) (StoredKey, error) {
	if e == nil {
		return StoredKey{}, nil
	}
	k := StoredKey{ID: e.ID, AgentID: e.AgentID, Created: e.Created, Expires: e.Expires}
	switch e.Kind {
	case KindAPIKey.String():
		k.Credential = APIKey(e.Secret)
	case KindUserToken.String():
		k.Credential = UserToken(e.Secret)
	case KindSession.String():
		k.Credential = SessionToken(e.Secret, e.Expires)
	default:
		return k, fmt.Errorf("%w: unknown kind", ErrInvalidCredential)
	}
	return k, k.Credential.validate()
}

// memoryStore forgets everything with the process.
type memoryStore struct {
	mu       sync.Mutex
	rec      KeyRecord
	revision uint64 // 0: empty
	changed  chan struct{}
}

// MemoryStore keeps the record in memory, seeded with initial unless that is
// the zero Credential. A key that is rotated into it is gone with the process:
// it is for tests, and for programs that hand each new key on by
// [WithObserver].
func MemoryStore(initial Credential) KeyStore {
	s := &memoryStore{changed: make(chan struct{})}
	if !initial.IsZero() {
		s.rec = KeyRecord{Generation: 1, Current: StoredKey{Credential: initial, Created: wallNow()}}
		s.revision = 1
	}
	return s
}

func (s *memoryStore) Load(ctx context.Context) (KeyRecord, Revision, error) {
	if err := ctx.Err(); err != nil {
		return KeyRecord{}, "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.revision == 0 {
		return KeyRecord{}, "", fmt.Errorf("%w: the memory store is empty", ErrNoCredential)
	}
	return s.rec.clone(), s.currentLocked(), nil
}

func (s *memoryStore) currentLocked() Revision {
	if s.revision == 0 {
		return ""
	}
	return Revision(strconv.FormatUint(s.revision, 10))
}

func (s *memoryStore) Save(ctx context.Context, rec KeyRecord, previous Revision) (Revision, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if previous != s.currentLocked() {
		return "", fmt.Errorf("%w: the memory store is at another revision", ErrConflictingWrite)
	}
	s.rec = rec.clone()
	s.revision++
	close(s.changed)
	s.changed = make(chan struct{})
	return s.currentLocked(), nil
}

// Watch implements [KeyWatcher].
func (s *memoryStore) Watch(ctx context.Context) iter.Seq2[KeyRecord, error] {
	return func(yield func(KeyRecord, error) bool) {
		var seen uint64
		for {
			s.mu.Lock()
			rec, revision, changed := s.rec.clone(), s.revision, s.changed
			s.mu.Unlock()
			if revision != seen {
				seen = revision
				if !yield(rec, nil) {
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

var _ KeyWatcher = (*memoryStore)(nil)
