package seal_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/seal"
)

const plain = "sk_sealed_0123456789"

func TestSealedTextOpensOnlyForItsPurpose(t *testing.T) {
	t.Parallel()
	key := seal.NewKey()
	sealed, err := key.For("one").Seal([]byte(plain))
	require.NoError(t, err)
	assert.NotContains(t, string(sealed), plain)
	again, err := key.For("one").Seal([]byte(plain))
	require.NoError(t, err)
	assert.NotEqual(t, sealed, again, "each text has its own salt")

	opened, err := key.For("one").Open(sealed)
	require.NoError(t, err)
	assert.Equal(t, plain, string(opened))
	for name, s := range map[string]seal.Sealer{"purpose": key.For("other"), "key": seal.NewKey().For("one")} {
		_, err = s.Open(sealed)
		require.ErrorIs(t, err, seal.ErrUnsealable, name)
	}
}

func TestDamagedTextDoesNotOpen(t *testing.T) {
	t.Parallel()
	s := seal.NewKey().For("one")
	sealed, err := s.Seal([]byte(plain))
	require.NoError(t, err)
	for i := range sealed {
		bad := append([]byte(nil), sealed...)
		bad[i] ^= 1
		_, err := s.Open(bad)
		require.ErrorIs(t, err, seal.ErrUnsealable, "byte %d", i)
		_, err = s.Open(sealed[:i])
		require.ErrorIs(t, err, seal.ErrUnsealable, "the first %d bytes", i)
	}
}
