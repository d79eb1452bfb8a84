package agrenting

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"
)

// Errors of sealed stores. Neither of them counts as an empty store, so nothing
// is planted over what could not be read.
var (
	// ErrSealed says that a record is sealed and cannot be opened: with none of
	// the keys given, or because it is damaged.
	ErrSealed = errors.New("agrenting: the stored record is sealed and cannot be opened")
	// ErrNotSealed says that a store given to [Sealed] holds a plain record.
	ErrNotSealed = errors.New("agrenting: the stored record is not sealed")
)

// Sealed encrypts the secrets of a record before store gets it: the current,
// the pending and the previous key, and the lifeline of a rotation. The store
// then keeps, in place of each secret, a text that is of no use without the
// sealing key. Everything else stays readable: ids, times, generation,
// fingerprints.
//
// The encryption is AES-256-GCM under a key derived by HKDF-SHA-256 with a salt
// of its own for every secret and every Save. A sealed secret is bound to its
// place: its role, kind, key id, agent id, and the record's generation. Whoever
// can write to the store can destroy a record or bring back an old one whole,
// but cannot read one, nor have the previous key taken for the current one.
//
// key seals; key and older all open. To replace the sealing key, give the new
// one first and the old one after it in all programs, then have everything
// sealed anew by [Reseal] from the store to itself, then drop the old one. The
// key does not belong where the store is, see [SealingKeyFromEnv] and
// [SealingKeyFromFile].
//
// A record that is not sealed is refused as [ErrNotSealed] and left alone.
// [Reseal] moves a store from plain to sealed, and back. One that cannot be
// opened is [ErrSealed], and left alone too. A secret may have 2992 bytes at
// the most. The store is a [KeyWatcher] if store is one.
func Sealed(store KeyStore, key SealingKey, older ...SealingKey) (KeyStore, error) {
	if store == nil {
		return nil, optionError("Sealed", "the store is nil")
	}
	if _, ok := store.(sealing); ok {
		return nil, optionError("Sealed", "the store is sealed already")
	}
	s := &sealedStore{inner: store, keys: append([]SealingKey{key}, older...)}
	if slices.ContainsFunc(s.keys, SealingKey.IsZero) {
		return nil, optionError("Sealed", "a sealing key is missing; make one by NewSealingKey, once")
	}
	if w, ok := store.(KeyWatcher); ok {
		return &sealedWatcher{sealedStore: s, watcher: w}, nil
	}
	return s, nil
}

// sealing is a store that seals another.
type sealing interface{ inside() KeyStore }

type sealedStore struct {
	inner KeyStore
	keys  []SealingKey // the first seals
}

func (s *sealedStore) inside() KeyStore { return s.inner }

// String names the store inside.
func (s *sealedStore) String() string {
	if n, ok := s.inner.(fmt.Stringer); ok {
		return "agrenting.Sealed(" + n.String() + ")"
	}
	return fmt.Sprintf("agrenting.Sealed(%T)", s.inner)
}

func (s *sealedStore) Load(ctx context.Context) (KeyRecord, Revision, error) {
	rec, rev, err := s.inner.Load(ctx)
	if err != nil {
		return KeyRecord{}, "", err
	}
	if rec, err = s.each(rec, s.open); err != nil {
		return KeyRecord{}, "", err
	}
	return rec, rev, nil
}

func (s *sealedStore) Save(ctx context.Context, rec KeyRecord, previous Revision) (Revision, error) {
	rec, err := s.each(rec, s.seal)
	if err != nil {
		return "", err
	}
	return s.inner.Save(ctx, rec, previous)
}

type sealedWatcher struct {
	*sealedStore
	watcher KeyWatcher
}

// Watch implements [KeyWatcher].
func (s *sealedWatcher) Watch(ctx context.Context) iter.Seq2[KeyRecord, error] {
	return func(yield func(KeyRecord, error) bool) {
		for rec, err := range s.watcher.Watch(ctx) {
			if err == nil {
				rec, err = s.each(rec, s.open)
			}
			if !yield(rec, err) {
				return
			}
		}
	}
}

// each replaces every secret of a record by what change makes of it.
func (*sealedStore) each(rec KeyRecord, change func(Credential, sealedPlace) (Credential, error)) (KeyRecord, error) {
	rec = rec.clone()
	at := sealedPlace{generation: rec.Generation}
	for _, k := range []struct {
		role string
		key  *StoredKey
	}{{"current", &rec.Current}, {"pending", &rec.Pending}, {"previous", &rec.Previous}} {
		at.role, at.id, at.agent = k.role, k.key.ID, k.key.AgentID
		c, err := change(k.key.Credential, at)
		if err != nil {
			return KeyRecord{}, err
		}
		k.key.Credential = c
	}
	if in := rec.Intent; in != nil {
		at.role, at.id, at.agent = "lifeline", in.Key, ""
		c, err := change(in.Lifeline, at)
		if err != nil {
			return KeyRecord{}, err
		}
		in.Lifeline = c
	}
	return rec, nil
}

// sealedPlace is where in which record a secret belongs.
type sealedPlace struct {
	role       string
	generation uint64
	id, agent  string
}

func (p sealedPlace) sealer(k SealingKey, kind Kind) sealer {
	return sealer{secret: k.key, info: fmt.Sprintf("agrenting key record v1 %s %d %q %q %q",
		p.role, p.generation, kind, p.id, p.agent)}
}

const (
	// sealedPrefix begins a sealed secret, after which come the fingerprint of
	// the sealing key, a dot, and what sealer makes, in base64url.
	sealedPrefix = "sealed1."
	// fingerprintPrefix is left out there.
	fingerprintPrefix = "sha256:"
	// maxSealable is the longest secret whose sealed form is still one for a
	// store: 74 bytes are added, then a third, then 19.
	maxSealable = 2992
)

// isSealed reports whether a secret is the sealed form of another.
func isSealed(c Credential) bool { return strings.HasPrefix(c.Reveal(), sealedPrefix) }

func (s *sealedStore) seal(c Credential, at sealedPlace) (Credential, error) {
	if c.IsZero() {
		return c, nil
	}
	plain := c.Reveal()
	switch {
	case isSealed(c):
		return Credential{}, fmt.Errorf("%w: the %s key is sealed already, and sealed twice it would be lost; "+
			"was it loaded without Sealed?", ErrInvalidCredential, at.role)
	case len(plain) > maxSealable:
		return Credential{}, fmt.Errorf("%w: the %s key is %d bytes long, and at most %d can be sealed",
			ErrInvalidCredential, at.role, len(plain), maxSealable)
	}
	key := s.keys[0]
	b, err := at.sealer(key, c.Kind()).seal([]byte(plain))
	if err != nil {
		return Credential{}, err
	}
	return withSecret(c, sealedPrefix+strings.TrimPrefix(key.Fingerprint(), fingerprintPrefix)+"."+
		base64.RawURLEncoding.EncodeToString(b)), nil
}

func (s *sealedStore) open(c Credential, at sealedPlace) (Credential, error) {
	if c.IsZero() {
		return c, nil
	}
	if !isSealed(c) {
		return Credential{}, fmt.Errorf("%w: the %s key in %v is plain, and was left as it is; "+
			"to seal it, stop the programs that use it and call Reseal once, from the plain store to the sealed one",
			ErrNotSealed, at.role, s)
	}
	fp, text, _ := strings.Cut(strings.TrimPrefix(c.Reveal(), sealedPrefix), ".")
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Credential{}, fmt.Errorf("%w: the %s key in %v is damaged; nothing was changed", ErrSealed, at.role, s)
	}
	known := false
	for _, key := range s.keys {
		if strings.TrimPrefix(key.Fingerprint(), fingerprintPrefix) != fp {
			continue
		}
		known = true
		if plain, err := at.sealer(key, c.Kind()).open(b); err == nil {
			return withSecret(c, string(plain)), nil
		}
	}
	if known {
		return Credential{}, fmt.Errorf("%w: the %s key in %v was sealed under a key that is given here, but it is damaged, "+
			"or was altered or moved since; nothing was changed", ErrSealed, at.role, s)
	}
	return Credential{}, fmt.Errorf("%w: wrong sealing key: the %s key in %v was sealed under %s, and given is %s; nothing was changed",
		ErrSealed, at.role, s, nameOfSealing(fp), s.names())
}

// nameOfSealing is the fingerprint of a key as it stands in a record.
func nameOfSealing(fp string) string {
	if fp == "" || len(fp) > 64 || strings.Trim(fp, "0123456789abcdef") != "" {
		return "a key with no name"
	}
	return fingerprintPrefix + fp
}

func (s *sealedStore) names() string {
	names := make([]string, len(s.keys))
	for i, k := range s.keys {
		names[i] = k.Fingerprint()
	}
	return strings.Join(names, ", ")
}

// withSecret is a credential like c with another secret.
func withSecret(c Credential, text string) Credential {
	return newCredential(c.Kind(), text, c.Expires())
}

// Reseal takes the record of one store over into another, so that it is kept as
// the other keeps it. The two may be views of the same place, which is how a
// store changes over; stop the programs that use it first:
//
//	plain, err := agrenting.FileStore(path)
//	sealed, err := agrenting.Sealed(plain, key)
//	err = agrenting.Reseal(ctx, plain, sealed)  // from plain to sealed
//	err = agrenting.Reseal(ctx, sealed, plain)  // and back
//	err = agrenting.Reseal(ctx, sealed, sealed) // anew, under its first key
//
// If they are not the same place, to must be empty, and from keeps its record.
// The last of the three can be done while the store is in use. While a rotation
// is under way, and when another writer comes first, the error matches
// [ErrConflictingWrite] and nothing was changed: call it again.
func Reseal(ctx context.Context, from, to KeyStore) error {
	rec, rev, err := from.Load(ctx)
	if err != nil {
		return err
	}
	if in := rec.Intent; in != nil && time.Now().Before(in.Lease) {
		return fmt.Errorf("%w: the key is being rotated, at the latest until %s; try again then",
			ErrConflictingWrite, in.Lease.UTC().Format(time.RFC3339))
	}
	var previous Revision
	if _, _, err := to.Load(ctx); !errors.Is(err, ErrNoCredential) {
		same, err := samePlace(ctx, from, to)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%w: the store to copy to holds a record of its own, which was left as it is", ErrConflictingWrite)
		}
		previous = rev
	}
	if _, err := to.Save(ctx, rec, previous); err != nil {
		return err
	}
	if _, _, err = to.Load(ctx); err != nil {
		return fmt.Errorf("the record was saved, but: %w", err)
	}
	return nil
}

// samePlace reports whether two stores, sealed or not, are views of the same
// record.
func samePlace(ctx context.Context, a, b KeyStore) (bool, error) {
	x, xrev, err := unsealed(a).Load(ctx)
	if err != nil {
		return false, err
	}
	y, yrev, err := unsealed(b).Load(ctx)
	if err != nil {
		return false, err
	}
	return xrev == yrev && x.Generation == y.Generation && x.Current.Credential.Equal(y.Current.Credential), nil
}

// unsealed is the store inside of a sealed one.
func unsealed(s KeyStore) KeyStore {
	if w, ok := s.(sealing); ok {
		return w.inside()
	}
	return s
}
