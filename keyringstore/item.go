package keyringstore

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zalando/go-keyring"

	"github.com/agrenting/agrenting-go"
)

const (
	// format is the version of the items. Others are refused and left intact.
	format = 2
	// maxParts bounds what a damaged item can ask for.
	maxParts = 128
	// slotA and slotB are the two sets of names that parts can have. A save uses
	// the one that is not in use, so that the parts of the old record are whole
	// until the head is replaced.
	slotA, slotB = "a", "b"
)

// item is one record of a store, named by the account and the name of the record.
type item struct {
	*Store

	account string
}

func (s *Store) item(name string) item { return item{Store: s, account: s.account + " " + name} }

// head is the item itself. It has the data, or names the parts that have it.
type head struct {
	Format   int    `json:"format"`
	Revision string `json:"revision"`
	Data     string `json:"data,omitempty"` // base64
	// Parts is how many there are, Slot which of the two sets of names they
	// have, Sum the hash of them all.
	Parts int    `json:"parts,omitempty"`
	Slot  string `json:"slot,omitempty"`
	Sum   string `json:"sum,omitempty"`
}

func (i item) partName(slot string, n int) string {
	return fmt.Sprintf("%s (part %s%d)", i.account, slot, n)
}

// damaged is the error of an item that is not a record.
func (i item) damaged(account, what string) error {
	return fmt.Errorf("%w: the keyring item %q of %q was left intact: it %s", agrenting.ErrInvalidRecord, account, i.service, what)
}

// read returns the text of an item. ok is false if there is none.
func (i item) read(account string) (text string, ok bool, err error) {
	switch text, err = i.keyring.Get(i.service, account); {
	case errors.Is(err, keyring.ErrNotFound):
		return "", false, nil
	case err != nil:
		return "", false, i.unavailable(err)
	}
	return text, true, nil
}

// readHead returns nil if the record is missing.
func (i item) readHead() (*head, error) {
	text, ok, err := i.read(i.account)
	if err == nil && !ok {
		if text, _, err = i.read(i.Store.account); strings.HasPrefix(text, `{"format":1,`) {
			err = i.damaged(i.Store.account, "was written by an older build of this package. Delete it and fill the store with a live key")
		}
	}
	if err != nil || !ok {
		return nil, err
	}
	var h head
	switch {
	case json.Unmarshal([]byte(text), &h) != nil:
		return nil, i.damaged(i.account, "is not a record")
	case h.Format != format:
		return nil, i.damaged(i.account, fmt.Sprintf("has format %d, and this build reads format %d. Use the program that wrote it",
			h.Format, format))
	case h.Revision == "", h.Parts < 0, h.Parts > maxParts, h.Parts > 0 && h.Slot != slotA && h.Slot != slotB:
		return nil, i.damaged(i.account, "is damaged")
	}
	return &h, nil
}

func (i item) load() (agrenting.Record, error) {
	h, err := i.readHead()
	switch {
	case err != nil:
		return agrenting.Record{}, err
	case h == nil:
		return agrenting.Record{}, fmt.Errorf("%w: the keyring has no item %q of %q", agrenting.ErrNoRecord, i.account, i.service)
	}
	text := h.Data
	if h.Parts > 0 {
		if text, err = i.readParts(h); err != nil {
			return agrenting.Record{}, err
		}
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return agrenting.Record{}, i.damaged(i.account, "is damaged")
	}
	return agrenting.Record{Data: data, Revision: agrenting.Revision(h.Revision)}, nil
}

func (i item) readParts(h *head) (string, error) {
	var b strings.Builder
	for n := range h.Parts {
		part, ok, err := i.read(i.partName(h.Slot, n))
		if err != nil {
			return "", err
		}
		if !ok {
			return "", i.damaged(i.account, fmt.Sprintf("is damaged: part %d of %d is missing", n+1, h.Parts))
		}
		b.WriteString(part)
	}
	if sumOf(b.String()) != h.Sum {
		return "", i.damaged(i.account, "is damaged: its parts do not belong together")
	}
	return b.String(), nil
}

func sumOf(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }

func (i item) save(data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	old, err := i.readHead()
	if err != nil {
		return "", err
	}
	if old == nil {
		old = &head{}
	}
	if old.Revision != string(previous) {
		return "", fmt.Errorf("%w: another process has changed or removed the keyring item %q of %q",
			agrenting.ErrConflictingWrite, i.account, i.service)
	}
	h := head{Format: format, Revision: rand.Text(), Data: base64.StdEncoding.EncodeToString(data)}
	text, err := json.Marshal(h)
	if err == nil && len(text) > i.limit {
		text, err = i.divide(&h, old)
	}
	if err != nil {
		return "", err
	}
	if err := i.put(i.account, string(text)); err != nil {
		return "", err
	}
	if old.Parts > 0 {
		_ = i.deleteParts(old.Slot, 0) // the next save repeats it
	}
	return agrenting.Revision(h.Revision), nil
}

// divide writes the parts of a record, and returns the head that names them.
func (i item) divide(h, old *head) ([]byte, error) {
	text := h.Data
	h.Data, h.Sum, h.Slot = "", sumOf(text), slotA
	if old.Slot == slotA {
		h.Slot = slotB
	}
	for ; text != ""; h.Parts++ {
		if h.Parts == maxParts {
			return nil, fmt.Errorf("%w: %v: the record is too large (want at most %d items of the keyring)", ErrUnavailable, i.Store, maxParts)
		}
		part := text[:min(i.limit, len(text))]
		if err := i.put(i.partName(h.Slot, h.Parts), part); err != nil {
			return nil, err
		}
		text = text[len(part):]
	}
	_ = i.deleteParts(h.Slot, h.Parts) // left by a save that was interrupted
	return json.Marshal(h)
}

// put writes an item and reads it again: the program that talks to the Keychain
// does not report all failures.
func (i item) put(account, text string) error {
	if err := i.keyring.Set(i.service, account, text); err != nil {
		return i.unavailable(err)
	}
	got, _, err := i.read(account)
	if err == nil && got != text {
		return i.unavailable(errors.New("the keyring did not return the value that was just written"))
	}
	return err
}

// deleteParts deletes parts from the n-th on.
func (i item) deleteParts(slot string, n int) error {
	for ; n < maxParts; n++ {
		err := i.keyring.Delete(i.service, i.partName(slot, n))
		switch {
		case errors.Is(err, keyring.ErrNotFound):
			return nil
		case err != nil:
			return i.unavailable(err)
		}
	}
	return nil
}

func (i item) remove() error {
	if err := i.keyring.Delete(i.service, i.account); err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return i.unavailable(err)
	}
	return errors.Join(i.deleteParts(slotA, 0), i.deleteParts(slotB, 0))
}
