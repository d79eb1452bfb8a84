package seal_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
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

func TestParseSealingKeyErrors(t *testing.T) {
	t.Parallel()
	key, err := agrenting.ParseSealingKey("nonsense-0123456789")
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	assert.NotContains(t, err.Error(), "nonsense")
	assert.True(t, key.IsZero())
	_, err = agrenting.ParseSealingKey("")
	require.ErrorIs(t, err, agrenting.ErrInvalidCredential)
	require.ErrorContains(t, err, "variable or file", "what an unset variable gives")
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
	require.Error(t, json.Unmarshal(out, &back), "a summary is not a key") //nolint:staticcheck // it must fail
	assert.True(t, back.IsZero())
}
