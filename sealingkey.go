package agrenting

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/seal"
)

// Errors of sealed stores. Neither of them counts as an empty store, so a record
// that cannot be read is not replaced by the initial key.
var (
	// ErrSealed means that a record is sealed and cannot be opened: with none of
	// the keys given, or because it is damaged.
	ErrSealed = record.ErrSealed
	// ErrNotSealed means that a store given to [Sealed] holds a plain record.
	ErrNotSealed = record.ErrNotSealed
)

// A SealingKey encrypts what a store keeps, see [Sealed]. It is random, 256 bits
// long, and not a password. It prints, logs and encodes as its fingerprint; only
// [SealingKey.Reveal] returns it. The zero value is not a key. It is immutable and
// safe for concurrent use.
type SealingKey struct{ key seal.Key }

// NewSealingKey makes a random key. Keep the result of Reveal apart from the
// store that the key seals. Without it, the stored keys are lost.
func NewSealingKey() SealingKey { return SealingKey{seal.NewKey()} }

// ParseSealingKey reads what [SealingKey.Reveal] returned, for example from an
// environment variable or a mounted secret. White space around it is dropped. The
// error is an [ErrInvalidCredential] and shows nothing of text. Add the name of
// the variable or file to the error.
func ParseSealingKey(text string) (SealingKey, error) {
	k, problem := seal.ParseKey(text)
	if problem != "" {
		return SealingKey{}, fmt.Errorf("%w: the sealing key %s", ErrInvalidCredential, problem)
	}
	return SealingKey{k}, nil
}

// IsZero reports whether k is the zero value, which is not a key.
func (k SealingKey) IsZero() bool { return k.key.IsZero() }

// Reveal returns the key as text, for [ParseSealingKey], and is the only method
// that does; "" for the zero value.
func (k SealingKey) Reveal() string { return k.key.Reveal() }

// Fingerprint returns a short name of the key like "sha256:1a2b3c4d5e", safe in
// logs; "" for the zero value.
func (k SealingKey) Fingerprint() string { return k.key.Fingerprint() }

// String returns a summary without the key.
func (k SealingKey) String() string {
	if k.IsZero() {
		return "agrenting.SealingKey(none)"
	}
	return "agrenting.SealingKey(" + k.Fingerprint() + ")"
}

// GoString returns what String returns.
func (k SealingKey) GoString() string { return k.String() }

// Format writes what String returns, for every verb and flag.
func (k SealingKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// LogValue returns what String returns.
func (k SealingKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (k SealingKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalJSON returns what String returns, as a JSON string. It cannot be read
// back.
func (k SealingKey) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

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
// store to itself, then drop the old one. Keep the key away from the store:
// read it from a variable or a mounted secret, and give it to [ParseSealingKey].
//
// The name includes the prefixes of [Namespace], whether the store is sealed before or
// after it is divided.
//
// A record that is not sealed is refused with [ErrNotSealed], and one that cannot
// be opened with [ErrSealed]. Both are left intact. [Reseal] moves records from
// plain to sealed, and back. The store is a [Watcher] if store is one.
func Sealed(store Store, place string, key SealingKey, older ...SealingKey) (Store, error) {
	if store == nil {
		return nil, optionError("Sealed", "the store is nil")
	}
	inner := recordStore(store)
	if record.IsSealed(inner) {
		return nil, optionError("Sealed", "the store is sealed already")
	}
	if place == "" {
		return nil, optionError("Sealed", `the place is empty; name the folder, table or cluster, such as "production/writers"`)
	}
	keys := make([]seal.Key, 0, 1+len(older))
	for _, k := range append([]SealingKey{key}, older...) {
		if k.IsZero() {
			return nil, optionError("Sealed", "a sealing key is missing; create one with NewSealingKey and keep it")
		}
		keys = append(keys, k.key)
	}
	return publicStore(record.NewSealed(inner, place, keys), watched(store)), nil
}

// Reseal copies the key record from one store to another, and encrypts it as
// the other store does. Both may be views of the same place, to encrypt or
// decrypt a store. Stop the programs that use it first:
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
	return record.Reseal(ctx, recordStore(from), recordStore(to))
}
