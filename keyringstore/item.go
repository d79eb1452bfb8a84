package keyringstore

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/agrenting/agrenting-go"
)

// format is the version of the items. Others are refused unharmed.
const format = 1

// maxParts bounds what a damaged item can ask for.
const maxParts = 128

// head is the item under the account's own name. It has the record, or names
// the parts that have it.
type head struct {
	Format   int             `json:"format"`
	Revision string          `json:"revision"`
	Record   json.RawMessage `json:"record,omitempty"`
	// Parts is how many there are, Slot which of the two sets of names they
	// have, Sum the hash of them all.
	Parts int    `json:"parts,omitempty"`
	Slot  string `json:"slot,omitempty"`
	Sum   string `json:"sum,omitempty"`
}

// The two sets of names that parts can have. A save writes the one that is not
// in use, so that the parts of the old record are whole until the head is
// replaced.
const slotA, slotB = "a", "b"

func (s *Store) partName(slot string, n int) string {
	return fmt.Sprintf("%s (part %s%d)", s.account, slot, n)
}

// errDamaged says that what is in the keyring is no record.
func (s *Store) errDamaged(what string) error {
	return fmt.Errorf("%w: %v %s; it was left as it is", agrenting.ErrInvalidCredential, s, what)
}

// readHead returns nil where there is none.
func (s *Store) readHead() (*head, error) {
	text, err := s.keyring.Get(s.service, s.account)
	if errors.Is(err, keyring.ErrNotFound) {
		return nil, nil //nolint:nilnil // no item is no error
	}
	if err != nil {
		return nil, s.unavailable(err)
	}
	var h head
	if json.Unmarshal([]byte(text), &h) != nil {
		return nil, s.errDamaged("holds something else than a record")
	}
	switch {
	case h.Format != format:
		return nil, s.errDamaged(fmt.Sprintf("has format %d, and this program knows format %d: use the one that wrote it, or a newer one",
			h.Format, format))
	case h.Revision == "", h.Parts < 0, h.Parts > maxParts, h.Parts > 0 && h.Slot != slotA && h.Slot != slotB:
		return nil, s.errDamaged("is damaged")
	}
	return &h, nil
}

func (s *Store) load() (agrenting.KeyRecord, agrenting.Revision, error) {
	h, err := s.readHead()
	if err != nil {
		return agrenting.KeyRecord{}, "", err
	}
	if h == nil {
		return agrenting.KeyRecord{}, "", fmt.Errorf("%w: %v is not in the keyring yet", agrenting.ErrNoCredential, s)
	}
	b := []byte(h.Record)
	if h.Parts > 0 {
		if b, err = s.readParts(h); err != nil {
			return agrenting.KeyRecord{}, "", err
		}
	}
	rec, err := agrenting.DecodeKeyRecord(b)
	if err != nil {
		return agrenting.KeyRecord{}, "", fmt.Errorf("%v: %w", s, err)
	}
	return rec, agrenting.Revision(h.Revision), nil
}

func (s *Store) readParts(h *head) ([]byte, error) {
	var b strings.Builder
	for n := range h.Parts {
		part, err := s.keyring.Get(s.service, s.partName(h.Slot, n))
		if errors.Is(err, keyring.ErrNotFound) {
			return nil, s.errDamaged(fmt.Sprintf("is damaged: part %d of %d is missing", n+1, h.Parts))
		}
		if err != nil {
			return nil, s.unavailable(err)
		}
		b.WriteString(part)
	}
	if sumOf(b.String()) != h.Sum {
		return nil, s.errDamaged("is damaged: its parts do not belong together")
	}
	return []byte(b.String()), nil
}

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func (s *Store) save(record []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	old, err := s.readHead()
	switch {
	case err != nil:
		return "", err
	case old == nil && previous != "":
		return "", fmt.Errorf("%w: %v has been removed from the keyring", agrenting.ErrConflictingWrite, s)
	case old != nil && previous != agrenting.Revision(old.Revision):
		return "", fmt.Errorf("%w: %v was changed by another process", agrenting.ErrConflictingWrite, s)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, record); err != nil {
		return "", err
	}
	h := head{Format: format, Revision: rand.Text(), Record: compact.Bytes()}
	text, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	if len(text) > s.limit {
		if text, err = s.divide(&h, old); err != nil {
			return "", err
		}
	}
	if err := s.put(s.account, string(text)); err != nil {
		return "", err
	}
	if old != nil && old.Parts > 0 {
		_ = s.deleteParts(old.Slot, 0) // the next save does it
	}
	return agrenting.Revision(h.Revision), nil
}

// divide writes the record's parts, and returns the head that names them.
func (s *Store) divide(h, old *head) ([]byte, error) {
	text := string(h.Record)
	h.Record, h.Sum, h.Slot = nil, sumOf(text), slotA
	if old != nil && old.Slot == slotA {
		h.Slot = slotB
	}
	for ; text != ""; h.Parts++ {
		if h.Parts == maxParts {
			return nil, fmt.Errorf("%w: %v: the record is too large for it", ErrUnavailable, s)
		}
		part := text[:min(s.limit, len(text))]
		if err := s.put(s.partName(h.Slot, h.Parts), part); err != nil {
			return nil, err
		}
		text = text[len(part):]
	}
	_ = s.deleteParts(h.Slot, h.Parts) // what a save has left that did not come to its end
	return json.Marshal(h)
}

// put writes an item and reads it again: the program that talks to the
// Keychain does not say when it has failed.
func (s *Store) put(account, text string) error {
	if err := s.keyring.Set(s.service, account, text); err != nil {
		return s.unavailable(err)
	}
	got, err := s.keyring.Get(s.service, account)
	if err != nil {
		return s.unavailable(err)
	}
	if got != text {
		return s.unavailable(errors.New("it does not keep what is written"))
	}
	return nil
}

// deleteParts deletes parts from the n-th on.
func (s *Store) deleteParts(slot string, n int) error {
	for ; n < maxParts; n++ {
		err := s.keyring.Delete(s.service, s.partName(slot, n))
		if errors.Is(err, keyring.ErrNotFound) {
			return nil
		}
		if err != nil {
			return s.unavailable(err)
		}
	}
	return nil
}

func (s *Store) remove() error {
	if err := s.keyring.Delete(s.service, s.account); err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return s.unavailable(err)
	}
	return errors.Join(s.deleteParts(slotA, 0), s.deleteParts(slotB, 0))
}
