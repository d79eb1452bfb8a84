package agrenting_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func sealed(t *testing.T, s agrenting.Store, key agrenting.SealingKey) agrenting.Store {
	t.Helper()
	s, err := agrenting.Sealed(s, "test", key)
	require.NoError(t, err)
	return s
}

func fileStore(t *testing.T, folder string) agrenting.Store {
	t.Helper()
	s, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	return s
}

func save(t *testing.T, s agrenting.Store, data string, previous agrenting.Revision) agrenting.Revision {
	t.Helper()
	rev, err := s.Save(t.Context(), "key", []byte(data), previous)
	require.NoError(t, err)
	return rev
}

func load(t *testing.T, s agrenting.Store) agrenting.Record {
	t.Helper()
	rec, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	return rec
}

func TestResealMovesTheKeyOfAFolder(t *testing.T) {
	t.Parallel()
	plain := fileStore(t, t.TempDir())
	s := sealed(t, plain, agrenting.NewSealingKey())
	save(t, plain, "sk_sealed_0123456789", "")
	require.NoError(t, agrenting.Reseal(t.Context(), plain, s))
	assert.NotContains(t, string(load(t, plain).Data), "sk_sealed")
	require.NoError(t, agrenting.Reseal(t.Context(), s, plain))
	assert.Equal(t, "sk_sealed_0123456789", string(load(t, plain).Data))
}

func TestSealedRefusesInvalidArguments(t *testing.T) {
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
	folder := filepath.Join(t.TempDir(), "agrenting", "keys")
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
	content, err := os.ReadFile(filepath.Join(folder, "key.record"))
	require.NoError(t, err)
	for _, secret := range []string{first.Secret, state.Credential.Reveal()} {
		assert.NotContains(t, string(content), secret)
	}
}
