package record

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/agrenting/agrenting-go/internal/seal"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Errors of sealed stores. The root package exports them.
var (
	ErrSealed    = errors.New("agrenting: the stored record is sealed and cannot be opened")
	ErrNotSealed = errors.New("agrenting: the stored record is not sealed")
)

// Sealed is a store that encrypts records before it passes them to the inner
// store. Each record is bound to a place and to its name, including the prefixes
// of all namespaces.
type Sealed struct {
	inner Store
	place string
	keys  []seal.Key // the first one seals
}

// NewSealed returns a store around inner. The first key seals records, and all
// keys open them.
func NewSealed(inner Store, place string, keys []seal.Key) *Sealed {
	return &Sealed{inner: inner, place: place, keys: keys}
}

// IsSealed reports whether s is a sealed store itself.
func IsSealed(s Store) bool {
	_, ok := s.(*Sealed)
	return ok
}

// unsealed returns the inner store of a sealed store. It returns other stores
// unchanged.
func unsealed(s Store) Store {
	if s, ok := s.(*Sealed); ok {
		return s.inner
	}
	return s
}

// String returns a name that contains the name of the inner store.
func (s *Sealed) String() string { return "agrenting.Sealed(" + secret.NameOf(s.inner) + ")" }

// ShowsNoSecret implements [secret.Named].
func (*Sealed) ShowsNoSecret() {}

// Load implements [Store]. It also returns the revision if the error says that the
// record cannot be opened.
func (s *Sealed) Load(ctx context.Context, name string) (Raw, error) {
	raw, err := s.inner.Load(ctx, name)
	if err != nil {
		return Raw{}, err
	}
	return s.open(name, raw)
}

// Save implements [Store].
func (s *Sealed) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	if strings.HasPrefix(string(data), sealedPrefix) {
		return "", fmt.Errorf("%w: the data for %q is sealed already", ErrInvalid, name)
	}
	sealed, err := s.sealer(s.keys[0], name).Seal(data)
	if err != nil {
		return "", err
	}
	text := sealedPrefix + strings.TrimPrefix(s.keys[0].Fingerprint(), fingerprintPrefix) + "." +
		base64.RawURLEncoding.EncodeToString(sealed)
	return s.inner.Save(ctx, name, []byte(text), previous)
}

// Notify implements [Notifier].
func (s *Sealed) Notify(name string, changed func()) (stop func()) {
	return notify(s.inner, name, changed)
}

// Watch implements [Store].
func (s *Sealed) Watch(ctx context.Context, name string) iter.Seq2[Raw, error] {
	changes := s.inner.Watch(ctx, name)
	if changes == nil {
		return nil
	}
	return func(yield func(Raw, error) bool) {
		for raw, err := range changes {
			if err == nil {
				raw, err = s.open(name, raw)
			}
			if !yield(raw, err) {
				return
			}
		}
	}
}

const (
	// sealedPrefix begins a sealed record. The fingerprint of the sealing key, a
	// dot, and the sealed data in base64url follow it.
	sealedPrefix = "sealed2."
	// fingerprintPrefix is omitted from that fingerprint.
	fingerprintPrefix = "sha256:"
)

func (s *Sealed) sealer(k seal.Key, name string) seal.Sealer {
	return k.For(fmt.Sprintf("agrenting record v2 %q %q", s.place, fullName(s.inner, name)))
}

func (s *Sealed) open(name string, raw Raw) (Raw, error) {
	fail := func(kind error, format string, args ...any) (Raw, error) {
		return Raw{Revision: raw.Revision}, fmt.Errorf("%w: %q in %s %s. Nothing was changed",
			kind, name, secret.NameOf(s.inner), fmt.Sprintf(format, args...))
	}
	rest, ok := strings.CutPrefix(string(raw.Data), sealedPrefix)
	if !ok {
		return fail(ErrNotSealed, "is not encrypted. To seal it, stop the programs that use it and call Reseal once, "+
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
			return Raw{Data: plain, Revision: raw.Revision}, nil
		}
	}
	if known {
		return fail(ErrSealed, "was sealed for another place or name, or is damaged; this store's place is %q", s.place)
	}
	return fail(ErrSealed, "was sealed with %s, but this store uses %s. If the sealing key was replaced, pass the old one after the new one", sealingKeyName(fp), s.fingerprints())
}

// sealingKeyName returns the fingerprint of a key, from the form that it has in a
// record.
func sealingKeyName(fp string) string {
	if fp == "" || len(fp) > 64 || strings.Trim(fp, "0123456789abcdef") != "" {
		return "an unnamed key"
	}
	return fingerprintPrefix + fp
}

func (s *Sealed) fingerprints() string {
	all := make([]string, len(s.keys))
	for i, k := range s.keys {
		all[i] = k.Fingerprint()
	}
	return strings.Join(all, ", ")
}

// Reseal copies the key record of one store to another. The two stores may be
// views of the same place, one or both of them sealed. If they are not, the store
// to must be empty.
func Reseal(ctx context.Context, from, to Store) error {
	raw, err := from.Load(ctx, KeyName)
	if err != nil {
		return err
	}
	previous := ""
	if _, err := to.Load(ctx, KeyName); !errors.Is(err, ErrNoRecord) {
		same, err := samePlace(ctx, from, to)
		if err != nil {
			return err
		}
		if !same {
			return fmt.Errorf("%w: the store to copy to has a record already, which was left intact", ErrConflict)
		}
		previous = raw.Revision
	}
	if _, err := to.Save(ctx, KeyName, raw.Data, previous); err != nil {
		return err
	}
	if _, err = to.Load(ctx, KeyName); err != nil {
		return fmt.Errorf("the record was saved, but cannot be loaded again: %w", err)
	}
	return nil
}

// samePlace reports whether two stores, sealed or not, are views of the same
// record.
func samePlace(ctx context.Context, a, b Store) (bool, error) {
	x, err := unsealed(a).Load(ctx, KeyName)
	if err != nil {
		return false, err
	}
	y, err := unsealed(b).Load(ctx, KeyName)
	if err != nil {
		return false, err
	}
	return x.Revision == y.Revision && bytes.Equal(x.Data, y.Data), nil
}
