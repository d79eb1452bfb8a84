package agrenting_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

func TestSealingKeyIsReadBack(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	for _, text := range []string{key.Reveal(), " " + key.Reveal() + "\r\n"} {
		got, err := agrenting.ParseSealingKey(text)
		require.NoError(t, err)
		assert.Equal(t, key.Reveal(), got.Reveal())
		assert.Equal(t, key.Fingerprint(), got.Fingerprint())
	}
	assert.NotEqual(t, key.Reveal(), agrenting.NewSealingKey().Reveal())
	assert.False(t, key.IsZero())
}

func TestNoSealingKeyIsNone(t *testing.T) {
	t.Parallel()
	var key agrenting.SealingKey
	assert.True(t, key.IsZero())
	assert.Empty(t, key.Reveal())
	assert.Empty(t, key.Fingerprint())
	assert.Equal(t, "agrenting.SealingKey(none)", key.String())
}

func TestMistakesInASealingKeyAreSeen(t *testing.T) {
	t.Parallel()
	text := agrenting.NewSealingKey().Reveal()
	wrong := map[string]string{
		"empty":     "",
		"blank":     " \n",
		"password":  "correct horse battery staple",
		"API key":   "sk_live_0123456789012345678901234567890123456789",
		"cut off":   text[:len(text)-1],
		"too long":  text + "AAAA",
		"not ours":  strings.Replace(text, "agrseal1", "agrseal2", 1),
		"two keys":  text + "\n" + text,
		"no base64": text[:20] + "*" + text[21:],
	}
	for i := len("agrseal1_"); i < len(text); i++ {
		b := []byte(text)
		b[i] = 'A'
		if text[i] == 'A' {
			b[i] = 'B'
		}
		wrong[fmt.Sprintf("typing error at %d", i)] = string(b)
	}
	for name, text := range wrong {
		key, err := agrenting.ParseSealingKey(text)
		require.ErrorIs(t, err, agrenting.ErrInvalidCredential, name)
		assert.True(t, key.IsZero())
		if rest := strings.TrimPrefix(text, "agrseal1_"); len(rest) > 8 {
			assert.NotContains(t, err.Error(), rest[:8], name)
		}
	}
}

func TestSealingKeyComesFromTheEnvironment(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	lookup := func(name string) (string, bool) {
		value, ok := map[string]string{"RIGHT": key.Reveal(), "WRONG": "nonsense-0123456789", "EMPTY": ""}[name]
		return value, ok
	}
	got, err := agrenting.SealingKeyFromEnv(lookup, "RIGHT")
	require.NoError(t, err)
	assert.Equal(t, key.Reveal(), got.Reveal())
	for _, name := range []string{"EMPTY", "UNSET"} {
		_, err = agrenting.SealingKeyFromEnv(lookup, name)
		require.ErrorIs(t, err, agrenting.ErrNoCredential)
		require.ErrorContains(t, err, name)
	}
	_, err = agrenting.SealingKeyFromEnv(lookup, "WRONG")
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	require.ErrorContains(t, err, "WRONG")
	assert.NotContains(t, err.Error(), "nonsense")
	_, err = agrenting.SealingKeyFromEnv(nil, "STORE_TEST_NO_SUCH_VARIABLE")
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
}

func TestSealingKeyComesFromAFile(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	path := filepath.Join(t.TempDir(), "sealing.key")
	_, err := agrenting.SealingKeyFromFile(path)
	require.ErrorIs(t, err, agrenting.ErrNoCredential)
	require.NoError(t, os.WriteFile(path, []byte(key.Reveal()+"\n"), 0o600))
	got, err := agrenting.SealingKeyFromFile(path)
	require.NoError(t, err)
	assert.Equal(t, key.Reveal(), got.Reveal())
	if runtime.GOOS != "windows" { // there, the folder's access list decides
		require.NoError(t, os.Chmod(path, 0o644))
		_, err = agrenting.SealingKeyFromFile(path)
		require.ErrorContains(t, err, "chmod 600")
		require.NoError(t, os.Chmod(path, 0o600))
	}
	require.NoError(t, os.WriteFile(path, []byte("nonsense"), 0o600))
	_, err = agrenting.SealingKeyFromFile(path)
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	require.ErrorContains(t, err, "sealing.key")
}

func TestSealingKeyIsNotPrinted(t *testing.T) {
	t.Parallel()
	key := agrenting.NewSealingKey()
	text := key.Reveal()
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "agrseal1_"))
	require.NoError(t, err)
	secrets := []string{text[len("agrseal1_"):], string(raw[:32]), hex.EncodeToString(raw[:32])}
	s, err := agrenting.Sealed(agrenting.MemoryStore(), "test", key)
	require.NoError(t, err)
	holder := struct {
		Key agrenting.SealingKey
		own agrenting.SealingKey
		in  *agrenting.SealingKey
		at  agrenting.Store
	}{key, key, &key, s}
	var b bytes.Buffer
	for _, v := range []any{key, &key, holder, &holder, s, []agrenting.SealingKey{key}, map[string]any{"key": key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
			fmt.Fprintf(&b, verb+"\n", v)
		}
		j, err := json.Marshal(v)
		require.NoError(t, err)
		b.Write(j)
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
		require.Error(t, gob.NewEncoder(&b).Encode(v))
	}
	for _, s := range secrets {
		assert.NotContains(t, b.String(), s)
	}
	assert.Contains(t, b.String(), key.Fingerprint())

	out, err := json.Marshal(key)
	require.NoError(t, err)
	var back agrenting.SealingKey
	require.Error(t, json.Unmarshal(out, &back), "a summary is no key")
	assert.True(t, back.IsZero())
}
