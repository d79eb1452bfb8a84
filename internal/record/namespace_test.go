package record_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

func TestPrefixesOfNamespaces(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "A1", "a_1", ".a", "a.", "-a", strings.Repeat("a", 39), strings.Repeat("a", 40)} {
		assert.NotEmpty(t, record.PrefixProblem(prefix), prefix)
	}
	agent := "0b0e7c2e-3c5b-4a51-9d8a-111111111111"
	for _, prefix := range []string{"a1", "a.b", agent, strings.Repeat("a", 38)} {
		assert.Empty(t, record.PrefixProblem(prefix), prefix)
	}
}

func TestNamespacesKeepRecordsApart(t *testing.T) {
	t.Parallel()
	s := record.NewMemory()
	a, b := record.NewNamespace(s, "a"), record.NewNamespace(s, "b")
	_, err := a.Save(t.Context(), "key", []byte("1"), "")
	require.NoError(t, err)
	_, err = b.Load(t.Context(), "key")
	require.ErrorIs(t, err, record.ErrNoRecord)
	rec, err := s.Load(t.Context(), "a.key")
	require.NoError(t, err)
	assert.Equal(t, "1", string(rec.Data))
	nested := record.NewNamespace(a, "x")
	_, err = nested.Save(t.Context(), "key", []byte("2"), "")
	require.NoError(t, err)
	_, err = s.Load(t.Context(), "a.x.key")
	require.NoError(t, err)
	assert.Equal(t, "agrenting.Namespace(agrenting.MemoryStore(), a.)", a.String())
}
