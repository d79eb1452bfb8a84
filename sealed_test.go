package agrenting_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func sealed(t *testing.T, s agrenting.Store, key agrenting.SealingKey, older ...agrenting.SealingKey) agrenting.Store {
	t.Helper()
	s, err := agrenting.Sealed(s, "test", key, older...)
	require.NoError(t, err)
	return s
}

const sealedSecret = "sk_sealed_0123456789"

func load(t *testing.T, s agrenting.Store) agrenting.Record {
	t.Helper()
	rec, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	return rec
}

func TestSealedStoreKeepsNoPlainData(t *testing.T) {
	t.Parallel()
	inner := agrenting.MemoryStore()
	key := agrenting.NewSealingKey()
	s := sealed(t, inner, key)
	rev := save(t, s, sealedSecret, "")
	first := string(load(t, inner).Data)
	assert.NotContains(t, first, sealedSecret)
	assert.Contains(t, first, strings.TrimPrefix(key.Fingerprint(), "sha256:"), "it names its key")
	assert.Equal(t, sealedSecret, string(load(t, s).Data))
	save(t, s, sealedSecret, rev)
	assert.NotEqual(t, first, string(load(t, inner).Data), "each save has a salt of its own")
}

func TestSealedRecordsOpenNowhereElse(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	inner := agrenting.MemoryStore()
	s := sealed(t, inner, key)
	save(t, s, sealedSecret, "")
	data := load(t, inner).Data

	_, err := inner.Save(t.Context(), "other", data, "")
	require.NoError(t, err)
	_, err = s.Load(t.Context(), "other")
	require.ErrorIs(t, err, agrenting.ErrSealed, "another name")

	elsewhere, err := agrenting.Sealed(inner, "elsewhere", key)
	require.NoError(t, err)
	_, err = elsewhere.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrSealed, "another place")
	require.ErrorContains(t, err, `"elsewhere"`)

	wrong := agrenting.NewSealingKey()
	_, err = sealed(t, inner, wrong).Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrSealed, "another key")
	require.ErrorContains(t, err, key.Fingerprint())
	require.ErrorContains(t, err, wrong.Fingerprint())
	require.NotErrorIs(t, err, agrenting.ErrNoRecord, "or the initial key would replace it")
}

func TestDamageOfASealedRecordIsNoticed(t *testing.T) {
	t.Parallel()
	inner := agrenting.MemoryStore()
	s := sealed(t, inner, agrenting.NewSealingKey())
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

func TestPlainRecordIsNotTakenForASealedOne(t *testing.T) {
	t.Parallel()
	inner := agrenting.MemoryStore()
	s := sealed(t, inner, agrenting.NewSealingKey())
	rev := save(t, inner, sealedSecret, "")
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNotSealed)
	require.ErrorContains(t, err, "Reseal")
	assert.NotContains(t, err.Error(), sealedSecret)
	assert.Equal(t, agrenting.Record{Data: []byte(sealedSecret), Revision: rev}, load(t, inner))
}

func TestSealingKeyIsReplaced(t *testing.T) {
	t.Parallel()
	inner := agrenting.MemoryStore()
	first, second := agrenting.NewSealingKey(), agrenting.NewSealingKey()
	save(t, sealed(t, inner, first), sealedSecret, "")
	both := sealed(t, inner, second, first)
	assert.Equal(t, sealedSecret, string(load(t, both).Data))
	require.NoError(t, agrenting.Reseal(t.Context(), both, both))
	assert.Equal(t, sealedSecret, string(load(t, sealed(t, inner, second)).Data))
	_, err := sealed(t, inner, first).Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrSealed)
}

func TestStoreChangesOverToSealedAndBack(t *testing.T) {
	t.Parallel()
	plain := fileStore(t, storeFolder(t))
	s := sealed(t, plain, agrenting.NewSealingKey())
	save(t, plain, sealedSecret, "")
	require.NoError(t, agrenting.Reseal(t.Context(), plain, s))
	assert.NotContains(t, string(load(t, plain).Data), sealedSecret)
	assert.Equal(t, sealedSecret, string(load(t, s).Data))
	require.NoError(t, agrenting.Reseal(t.Context(), s, plain))
	assert.Equal(t, sealedSecret, string(load(t, plain).Data))
}

func TestResealCopiesToAnEmptyStoreOnly(t *testing.T) {
	t.Parallel()
	from, to := agrenting.MemoryStore(), agrenting.MemoryStore()
	require.ErrorIs(t, agrenting.Reseal(t.Context(), from, to), agrenting.ErrNoRecord)
	save(t, from, sealedSecret, "")
	require.NoError(t, agrenting.Reseal(t.Context(), from, to))
	assert.Equal(t, sealedSecret, string(load(t, to).Data))
	require.ErrorIs(t, agrenting.Reseal(t.Context(), from, fullStore(t)), agrenting.ErrConflictingWrite)
}

func fullStore(t *testing.T) agrenting.Store {
	t.Helper()
	s := agrenting.MemoryStore()
	save(t, s, "another", "")
	return s
}

func TestSealedRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	key, inner := agrenting.NewSealingKey(), agrenting.MemoryStore()
	for name, build := range map[string]func() (agrenting.Store, error){
		"no store":     func() (agrenting.Store, error) { return agrenting.Sealed(nil, "test", key) },
		"no place":     func() (agrenting.Store, error) { return agrenting.Sealed(inner, "", key) },
		"no key":       func() (agrenting.Store, error) { return agrenting.Sealed(inner, "test", agrenting.SealingKey{}) },
		"no older key": func() (agrenting.Store, error) { return agrenting.Sealed(inner, "test", key, agrenting.SealingKey{}) },
		"sealed twice": func() (agrenting.Store, error) { return agrenting.Sealed(sealed(t, inner, key), "test", key) },
	} {
		_, err := build()
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, name)
	}
	s := sealed(t, inner, key)
	save(t, s, "x", "")
	_, err := s.Save(t.Context(), "other", load(t, inner).Data, "")
	require.ErrorIs(t, err, agrenting.ErrInvalidRecord, "sealed data is not sealed again")
}

func TestKeyIsRotatedInASealedFile(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "w"})
	first := srv.NewKey(agent.ID)
	folder := storeFolder(t)
	s := sealed(t, fileStore(t, folder), agrenting.NewSealingKey())
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(first.Secret)), agrenting.WithStore(s), agrenting.WithSession())
	require.NoError(t, err)
	defer c.Close()
	res, err := c.Rotate(t.Context())
	require.NoError(t, err)
	state, err := agrenting.LoadKeyState(t.Context(), s)
	require.NoError(t, err)
	assert.Equal(t, res.To, state.Credential.Fingerprint())
	assert.EqualValues(t, 2, state.Generation)
	assert.Nil(t, state.Unfinished)
	content, err := os.ReadFile(keyFile(folder))
	require.NoError(t, err)
	for _, secret := range []string{first.Secret, state.Credential.Reveal()} {
		assert.NotContains(t, string(content), secret)
	}
}
