package sdktest

import (
	"context"
	"iter"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// WallNow returns the current time without a monotonic reading, as records keep it.
func WallNow() time.Time { return time.Now().Round(0) }

// Marker returns the name of the keys that an intent creates.
func Marker(in *record.Intent) string { return "agrenting-go/" + in.Key }

// AskAttempts is how often a rotation makes a call with an unknown outcome.
const AskAttempts = 4

// LoadRecord loads the key record of a store.
func LoadRecord(ctx context.Context, s agrenting.Store) (record.Key, agrenting.Revision, error) {
	e, err := keySlot(s).Load(ctx)
	return e.Body, agrenting.Revision(e.Revision), err
}

// SaveRecord saves a key record, without a lease.
func SaveRecord(ctx context.Context, s agrenting.Store, rec record.Key, previous agrenting.Revision) (agrenting.Revision, error) {
	return save(ctx, s, rec, previous, record.Lease{})
}

// SaveHeld saves a key record under a lease.
func SaveHeld(ctx context.Context, s agrenting.Store, rec record.Key, previous agrenting.Revision, holder string, d time.Duration) (agrenting.Revision, error) {
	return save(ctx, s, rec, previous, record.Lease{Holder: holder, Duration: d})
}

// save counts the writes as every writer does. A record with an earlier count would
// look like one from a backup.
func save(ctx context.Context, s agrenting.Store, rec record.Key, previous agrenting.Revision, lease record.Lease) (agrenting.Revision, error) {
	slot := keySlot(s)
	now, _ := slot.Load(ctx) // without a record, the count starts at 0
	lease.Counter = now.Lease.Counter
	e, err := slot.Save(ctx, record.Entry[record.Key]{Body: rec, Revision: string(previous), Lease: lease})
	return agrenting.Revision(e.Revision), err
}

// keySlot returns the key record of a store.
func keySlot(s agrenting.Store) *record.Slot[record.Key] {
	return record.Keys(record.Config{Store: recordStore{s}, Mismatch: mismatch})
}

// StoreWith returns a memory store that contains a key.
func StoreWith(key agrenting.Credential) agrenting.Store {
	s := agrenting.MemoryStore()
	_, err := SaveRecord(context.Background(), s, record.Key{
		Generation: 1, Lineage: record.LineageOf(SecretCredential(key)), Current: record.StoredKey{Credential: SecretCredential(key), Created: WallNow()},
	}, "")
	if err != nil {
		panic(err)
	}
	return s
}

// RecordIn decodes data that will be saved; ok is false for other records.
func RecordIn(name string, data []byte) (e record.Entry[record.Key], ok bool) {
	if name != record.KeyName {
		return record.Entry[record.Key]{}, false
	}
	e, err := record.DecodeKey(data)
	return e, err == nil
}

// SecretCredential returns the internal counterpart of a credential, as records keep
// it.
func SecretCredential(c agrenting.Credential) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.Kind(c.Kind()), Secret: c.Reveal(), Expires: c.Expires()})
}

// mismatch returns the error for a record that belongs elsewhere.
func mismatch(name, field, stored, configured string) error {
	return &agrenting.RecordMismatchError{Record: name, Field: field, Stored: stored, Configured: configured}
}

// recordStore adapts a public store to internal/record. The store is not watched.
type recordStore struct{ store agrenting.Store }

func (s recordStore) Load(ctx context.Context, name string) (record.Raw, error) {
	rec, err := s.store.Load(ctx, name)
	return record.Raw{Data: rec.Data, Revision: string(rec.Revision)}, err
}

func (s recordStore) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	rev, err := s.store.Save(ctx, name, data, agrenting.Revision(previous))
	return string(rev), err
}

func (s recordStore) Watch(context.Context, string) iter.Seq2[record.Raw, error] { return nil }
