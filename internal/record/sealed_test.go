package record_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/filestore"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/seal"
)

func sealed(s record.Store, key seal.Key, older ...seal.Key) record.Store {
	return record.NewSealed(s, "test", append([]seal.Key{key}, older...))
}

func fileStore(t *testing.T) record.Store {
	t.Helper()
	s, err := filestore.New(filestore.Config{Folder: filepath.Join(t.TempDir(), "keys"), Invalid: fmt.Errorf})
	require.NoError(t, err)
	return s
}

func save(t *testing.T, s record.Store, data, previous string) string {
	t.Helper()
	rev, err := s.Save(t.Context(), "key", []byte(data), previous)
	require.NoError(t, err)
	return rev
}

const sealedSecret = "sk_sealed_0123456789"

func load(t *testing.T, s record.Store) record.Raw {
	t.Helper()
	rec, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	return rec
}

func TestSealedStoreKeepsNoPlainData(t *testing.T) {
	t.Parallel()
	inner := record.NewMemory()
	key := seal.NewKey()
	s := sealed(inner, key)
	rev := save(t, s, sealedSecret, "")
	first := string(load(t, inner).Data)
	assert.NotContains(t, first, sealedSecret)
	assert.Contains(t, first, strings.TrimPrefix(key.Fingerprint(), "sha256:"), "it names its key")
	assert.Equal(t, sealedSecret, string(load(t, s).Data))
	save(t, s, sealedSecret, rev)
	assert.NotEqual(t, first, string(load(t, inner).Data), "each save has its own salt")
}

func TestSealedRecordsOpenNowhereElse(t *testing.T) {
	t.Parallel()
	key := seal.NewKey()
	inner := record.NewMemory()
	s := sealed(inner, key)
	save(t, s, sealedSecret, "")
	data := load(t, inner).Data

	_, err := inner.Save(t.Context(), "other", data, "")
	require.NoError(t, err)
	_, err = s.Load(t.Context(), "other")
	require.ErrorIs(t, err, record.ErrSealed, "another name")

	elsewhere := record.NewSealed(inner, "elsewhere", []seal.Key{key})
	_, err = elsewhere.Load(t.Context(), "key")
	require.ErrorIs(t, err, record.ErrSealed, "another place")
	require.ErrorContains(t, err, `"elsewhere"`)

	wrong := seal.NewKey()
	_, err = sealed(inner, wrong).Load(t.Context(), "key")
	require.ErrorIs(t, err, record.ErrSealed, "another key")
	require.ErrorContains(t, err, key.Fingerprint())
	require.ErrorContains(t, err, wrong.Fingerprint())
	require.NotErrorIs(t, err, record.ErrNoRecord, "or the initial key would replace it")
}

// Each case copies a record from one view of a store to another one.
func TestCopiedSealedRecordsAreRefused(t *testing.T) {
	t.Parallel()
	key := seal.NewKey()
	at := func(s record.Store, place string) record.Store { return record.NewSealed(s, place, []seal.Key{key}) }
	in := func(s record.Store, prefix string) record.Store { return record.NewNamespace(s, prefix) }
	type view func(record.Store) record.Store
	inA := func(s record.Store) record.Store { return at(in(s, "a"), "test") }
	for name, tc := range map[string]struct {
		from, to view
		as       string // the name that it is copied to
		opens    bool
	}{
		"itself":                   {inA, inA, "key", true},
		"sealed before or after":   {inA, func(s record.Store) record.Store { return in(at(s, "test"), "a") }, "key", true},
		"another name":             {inA, inA, "other", false},
		"another place":            {inA, func(s record.Store) record.Store { return at(in(s, "a"), "elsewhere") }, "key", false},
		"another namespace":        {inA, func(s record.Store) record.Store { return at(in(s, "b"), "test") }, "key", false},
		"a namespace of sealed":    {inA, func(s record.Store) record.Store { return in(at(s, "test"), "b") }, "key", false},
		"no namespace":             {inA, func(s record.Store) record.Store { return at(s, "test") }, "key", false},
		"a namespace in it":        {inA, func(s record.Store) record.Store { return at(in(in(s, "a"), "a"), "test") }, "key", false},
		"a namespace in another":   {inA, func(s record.Store) record.Store { return at(in(in(s, "b"), "a"), "test") }, "key", false},
		"names that look the same": {inA, func(s record.Store) record.Store { return at(s, `test" "a.key`) }, "key", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := newRaw(), newRaw()
			_, err := tc.from(from).Save(t.Context(), "key", []byte(sealedSecret), "")
			require.NoError(t, err)
			to.data = from.data
			raw, err := tc.to(to).Load(t.Context(), tc.as)
			if tc.opens {
				require.NoError(t, err)
				assert.Equal(t, sealedSecret, string(raw.Data))
				return
			}
			require.ErrorIs(t, err, record.ErrSealed)
			require.NotErrorIs(t, err, record.ErrNoRecord)
			assert.Empty(t, raw.Data)
		})
	}
}

// rawStore has the same data under each name, as after copying it.
type rawStore struct {
	record.Store
	data []byte
}

func newRaw() *rawStore { return &rawStore{Store: record.NewMemory()} }

func (s *rawStore) Load(context.Context, string) (record.Raw, error) {
	return record.Raw{Data: s.data, Revision: "1"}, nil
}

func (s *rawStore) Save(_ context.Context, _ string, data []byte, _ string) (string, error) {
	s.data = data
	return "1", nil
}

func TestDamageOfASealedRecordIsNoticed(t *testing.T) {
	t.Parallel()
	inner := record.NewMemory()
	s := sealed(inner, seal.NewKey())
	save(t, s, sealedSecret, "")
	good := load(t, inner)
	rev := good.Revision
	for i := range good.Data {
		bad := append([]byte(nil), good.Data...)
		bad[i] ^= 1
		var err error
		rev, err = inner.Save(t.Context(), "key", bad, rev)
		require.NoError(t, err)
		rec, err := s.Load(t.Context(), "key")
		require.Error(t, err, "byte %d", i)
		assert.Empty(t, rec.Data)
	}
}

func TestPlainRecordIsNotReadAsSealed(t *testing.T) {
	t.Parallel()
	inner := record.NewMemory()
	s := sealed(inner, seal.NewKey())
	rev := save(t, inner, sealedSecret, "")
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, record.ErrNotSealed)
	require.ErrorContains(t, err, "Reseal")
	assert.NotContains(t, err.Error(), sealedSecret)
	assert.Equal(t, record.Raw{Data: []byte(sealedSecret), Revision: rev}, load(t, inner))
}

func TestSealingKeyIsReplaced(t *testing.T) {
	t.Parallel()
	inner := record.NewMemory()
	first, second := seal.NewKey(), seal.NewKey()
	save(t, sealed(inner, first), sealedSecret, "")
	both := sealed(inner, second, first)
	assert.Equal(t, sealedSecret, string(load(t, both).Data))
	require.NoError(t, record.Reseal(t.Context(), both, both))
	assert.Equal(t, sealedSecret, string(load(t, sealed(inner, second)).Data))
	_, err := sealed(inner, first).Load(t.Context(), "key")
	require.ErrorIs(t, err, record.ErrSealed)
}

func TestStoreChangesOverToSealedAndBack(t *testing.T) {
	t.Parallel()
	plain := fileStore(t)
	s := sealed(plain, seal.NewKey())
	save(t, plain, sealedSecret, "")
	require.NoError(t, record.Reseal(t.Context(), plain, s))
	assert.NotContains(t, string(load(t, plain).Data), sealedSecret)
	assert.Equal(t, sealedSecret, string(load(t, s).Data))
	require.NoError(t, record.Reseal(t.Context(), s, plain))
	assert.Equal(t, sealedSecret, string(load(t, plain).Data))
}

func TestResealCopiesToAnEmptyStoreOnly(t *testing.T) {
	t.Parallel()
	from, to := record.NewMemory(), record.NewMemory()
	require.ErrorIs(t, record.Reseal(t.Context(), from, to), record.ErrNoRecord)
	save(t, from, sealedSecret, "")
	require.NoError(t, record.Reseal(t.Context(), from, to))
	assert.Equal(t, sealedSecret, string(load(t, to).Data))
	require.ErrorIs(t, record.Reseal(t.Context(), from, fullStore(t)), record.ErrConflict)
}

func fullStore(t *testing.T) record.Store {
	t.Helper()
	s := record.NewMemory()
	save(t, s, "another", "")
	return s
}
