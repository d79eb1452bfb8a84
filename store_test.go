package agrenting_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

func TestStoresConform(t *testing.T) {
	t.Parallel()
	shared := func(build func(t *testing.T) agrenting.Store) func(*testing.T) agrenting.Store {
		s := build(t)
		return func(*testing.T) agrenting.Store { return s }
	}
	for name, open := range map[string]func(*testing.T) agrenting.Store{
		"memory":    shared(func(*testing.T) agrenting.Store { return agrenting.MemoryStore() }),
		"namespace": shared(func(t *testing.T) agrenting.Store { t.Helper(); return inNamespace(t, agrenting.MemoryStore(), "a1") }),
		"sealed memory": shared(func(t *testing.T) agrenting.Store {
			t.Helper()
			return sealed(t, agrenting.MemoryStore(), agrenting.NewSealingKey())
		}),
		"sealed namespace": shared(func(t *testing.T) agrenting.Store {
			t.Helper()
			return sealed(t, inNamespace(t, agrenting.MemoryStore(), "a1"), agrenting.NewSealingKey())
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var opts []storetest.Option
			if strings.Contains(name, "namespace") {
				opts = append(opts, storetest.LongestName(63-len("a1.")))
			}
			storetest.Test(t, open, opts...)
		})
	}
}

func inNamespace(t *testing.T, s agrenting.Store, prefix string) agrenting.Store {
	t.Helper()
	n, err := agrenting.Namespace(s, prefix)
	require.NoError(t, err)
	return n
}

func TestNamespaceRefusesInvalidPrefixes(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"", "A1", "a_1", ".a", "a.", "-a", strings.Repeat("a", 40)} {
		_, err := agrenting.Namespace(agrenting.MemoryStore(), prefix)
		require.ErrorIs(t, err, agrenting.ErrInvalidOption, prefix)
	}
	_, err := agrenting.Namespace(nil, "a1")
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
	inNamespace(t, agrenting.MemoryStore(), "0b0e7c2e-3c5b-4a51-9d8a-111111111111") // an agent's ID
}

func TestNamespacesKeepRecordsApart(t *testing.T) {
	t.Parallel()
	s := agrenting.MemoryStore()
	a, b := inNamespace(t, s, "a"), inNamespace(t, s, "b")
	_, err := a.Save(t.Context(), "key", []byte("1"), "")
	require.NoError(t, err)
	_, err = b.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
	rec, err := s.Load(t.Context(), "a.key")
	require.NoError(t, err)
	assert.Equal(t, "1", string(rec.Data))
	nested := inNamespace(t, a, "x")
	_, err = nested.Save(t.Context(), "key", []byte("2"), "")
	require.NoError(t, err)
	_, err = s.Load(t.Context(), "a.x.key")
	require.NoError(t, err)
	assert.Equal(t, "agrenting.Namespace(agrenting.MemoryStore(), a.)", fmt.Sprint(a))
}

func TestRecordPrintsNoData(t *testing.T) {
	t.Parallel()
	rec := agrenting.Record{Data: []byte("sk_hidden_0123456789"), Revision: "7"}
	for _, v := range []any{rec, &rec, []agrenting.Record{rec}} {
		for _, verb := range []string{"%v", "%+v", "%s", "%q", "%x"} {
			assert.NotContains(t, fmt.Sprintf(verb, v), "sk_hidden")
		}
	}
	b, err := rec.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, `agrenting.Record(20 bytes, revision "7")`, string(b))
	assert.Equal(t, string(b), rec.LogValue().String())
}
