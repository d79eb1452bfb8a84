package agrenting

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/record"
)

// Errors of sealed stores. Neither of them counts as an empty store, so a record
// that cannot be read is not replaced by the initial key.
var (
	// ErrSealed says that a record is sealed and cannot be opened: with none of
	// the keys given, or because it is damaged.
	ErrSealed = record.ErrSealed
	// ErrNotSealed says that a store given to [Sealed] holds a plain record.
	ErrNotSealed = record.ErrNotSealed
)

// Sealed encrypts records before store gets them. The store then keeps text that
// is of no use without the sealing key.
//
// The encryption is AES-256-GCM under a key that is derived by HKDF-SHA-256 with
// a new salt for every Save. Each record is bound to place and to its name. place
// names the folder, table or cluster, such as "production/writers"; it must be
// the same in all programs that share the store. Someone who can write to the
// store can destroy a record or restore an older version of it, but cannot read
// one, or use it under another name or in another place.
//
// key seals; key and older all open. To replace the sealing key, give the new
// one first and the old one after it in all programs, then call [Reseal] from the
// store to itself, then drop the old one. Keep the key away from the store, see
// [SealingKeyFromEnv] and [SealingKeyFromFile].
//
// To divide a sealed store, seal first and divide then: Namespace(Sealed(…), prefix).
// The other way round, records of two namespaces would be bound to the same name.
//
// A record that is not sealed is refused with [ErrNotSealed], and one that cannot
// be opened with [ErrSealed]. Both are left intact. [Reseal] moves records from
// plain to sealed, and back. The store is a [Watcher] if store is one.
func Sealed(store Store, place string, key SealingKey, older ...SealingKey) (Store, error) {
	if store == nil {
		return nil, optionError("Sealed", "the store is nil")
	}
	if _, ok := unwrapped(store).(*sealedStore); ok {
		return nil, optionError("Sealed", "the store is sealed already")
	}
	if place == "" {
		return nil, optionError("Sealed", `the place is empty; name the folder, table or cluster, such as "production/writers"`)
	}
	s := &sealedStore{inner: store, place: place, keys: append([]SealingKey{key}, older...)}
	if slices.ContainsFunc(s.keys, SealingKey.IsZero) {
		return nil, optionError("Sealed", "a sealing key is missing; make one with NewSealingKey, once")
	}
	if w, ok := store.(Watcher); ok {
		return watchable{Store: s, watch: s.watch(w)}, nil
	}
	return s, nil
}

// unwrapped returns the store that a watchable one was made of.
func unwrapped(s Store) Store {
	if w, ok := s.(watchable); ok {
		return w.Store
	}
	return s
}

type sealedStore struct {
	inner Store
	place string
	keys  []SealingKey // the first seals
}

// String names the store inside.
func (s *sealedStore) String() string { return "agrenting.Sealed(" + storeName(s.inner) + ")" }

// Load returns the revision also with an error that says that the record cannot
// be opened.
func (s *sealedStore) Load(ctx context.Context, name string) (Record, error) {
	rec, err := s.inner.Load(ctx, name)
	if err != nil {
		return Record{}, err
	}
	return s.open(name, rec)
}

func (s *sealedStore) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	if strings.HasPrefix(string(data), sealedPrefix) {
		return "", fmt.Errorf("%w: the data for %q is sealed already", ErrInvalidRecord, name)
	}
	sealed, err := s.sealer(s.keys[0], name).Seal(data)
	if err != nil {
		return "", err
	}
	text := sealedPrefix + strings.TrimPrefix(s.keys[0].Fingerprint(), fingerprintPrefix) + "." +
		base64.RawURLEncoding.EncodeToString(sealed)
	return s.inner.Save(ctx, name, []byte(text), previous)
}

func (s *sealedStore) watch(w Watcher) func(context.Context, string) iter.Seq2[Record, error] {
	return func(ctx context.Context, name string) iter.Seq2[Record, error] {
		return func(yield func(Record, error) bool) {
			for rec, err := range w.Watch(ctx, name) {
				if err == nil {
					rec, err = s.open(name, rec)
				}
				if !yield(rec, err) {
					return
				}
			}
		}
	}
}

const (
	// sealedPrefix begins a sealed record. After it come the fingerprint of the
	// sealing key, a dot, and the sealed data in base64url.
	sealedPrefix = "sealed2."
	// fingerprintPrefix is left out there.
	fingerprintPrefix = "sha256:"
)

func (s *sealedStore) sealer(k SealingKey, name string) record.Sealer {
	return record.Sealer{Secret: k.key, Info: fmt.Sprintf("agrenting record v2 %q %q", s.place, name)}
}

func (s *sealedStore) open(name string, rec Record) (Record, error) {
	fail := func(kind error, format string, args ...any) (Record, error) {
		return Record{Revision: rec.Revision}, fmt.Errorf("%w: %q in %s %s; nothing was changed",
			kind, name, storeName(s.inner), fmt.Sprintf(format, args...))
	}
	rest, ok := strings.CutPrefix(string(rec.Data), sealedPrefix)
	if !ok {
		return fail(ErrNotSealed, "is plain. To seal it, stop the programs that use it and call Reseal once, "+
			"from the plain store to the sealed one")
	}
	fp, text, _ := strings.Cut(rest, ".")
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return fail(ErrSealed, "is damaged")
	}
	known := false
	for _, key := range s.keys {
		if strings.TrimPrefix(key.Fingerprint(), fingerprintPrefix) != fp {
			continue
		}
		known = true
		if plain, err := s.sealer(key, name).Open(sealed); err == nil {
			return Record{Data: plain, Revision: rec.Revision}, nil
		}
	}
	if known {
		return fail(ErrSealed, "was sealed under a key that is given here, but for another place or name, or it is damaged; "+
			"this store's place is %q", s.place)
	}
	return fail(ErrSealed, "was sealed under %s, and given is %s", sealingKeyName(fp), s.fingerprints())
}

// sealingKeyName is the fingerprint of a key as it is given in a record.
func sealingKeyName(fp string) string {
	if fp == "" || len(fp) > 64 || strings.Trim(fp, "0123456789abcdef") != "" {
		return "an unnamed key"
	}
	return fingerprintPrefix + fp
}

func (s *sealedStore) fingerprints() string {
	all := make([]string, len(s.keys))
	for i, k := range s.keys {
		all[i] = k.Fingerprint()
	}
	return strings.Join(all, ", ")
}

// Reseal copies the key record of one store into another, so that it is kept as
// the other keeps it. The two may be views of the same place, which is how a
// store changes over. Stop the programs that use it first:
//
//	plain, err := agrenting.FileStore(folder)
//	sealed, err := agrenting.Sealed(plain, "production/writers", key)
//	err = agrenting.Reseal(ctx, plain, sealed)  // from plain to sealed
//	err = agrenting.Reseal(ctx, sealed, plain)  // and back
//	err = agrenting.Reseal(ctx, sealed, sealed) // again, under its first key
//
// If they are not the same place, to must be empty, and from keeps its record.
// The last of the three can be done while the store is in use. If another process
// writes at the same time, the error matches [ErrConflictingWrite] and nothing
// was changed: call Reseal again. Shared sessions are not copied; programs replace
// them on their own.
func Reseal(ctx context.Context, from, to Store) error {
	rec, err := from.Load(ctx, record.KeyName)
	if err != nil {
		return err
	}
	var previous Revision
	if _, err := to.Load(ctx, record.KeyName); !errors.Is(err, ErrNoRecord) {
		same, err := samePlace(ctx, from, to)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%w: the store to copy to has a record already, which was left intact", ErrConflictingWrite)
		}
		previous = rec.Revision
	}
	if _, err := to.Save(ctx, record.KeyName, rec.Data, previous); err != nil {
		return err
	}
	if _, err = to.Load(ctx, record.KeyName); err != nil {
		return fmt.Errorf("the record was saved, but cannot be loaded again: %w", err)
	}
	return nil
}

// samePlace reports whether two stores, sealed or not, are views of the same
// record.
func samePlace(ctx context.Context, a, b Store) (bool, error) {
	x, err := unsealed(a).Load(ctx, record.KeyName)
	if err != nil {
		return false, err
	}
	y, err := unsealed(b).Load(ctx, record.KeyName)
	if err != nil {
		return false, err
	}
	return x.Revision == y.Revision && bytes.Equal(x.Data, y.Data), nil
}

// unsealed is the store inside a sealed one.
func unsealed(s Store) Store {
	if sealed, ok := unwrapped(s).(*sealedStore); ok {
		return sealed.inner
	}
	return s
}
