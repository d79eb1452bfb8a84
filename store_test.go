package agrenting_test

import (
	"context"
	"fmt"
	"iter"
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

// bareStore is a user's store. It cannot be watched, and has no name.
type bareStore struct{ agrenting.Store }

// panickingStore is a user's store with a mistake.
type panickingStore struct{}

func (panickingStore) Load(context.Context, string) (agrenting.Record, error) { panic("load") }

func (panickingStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	panic("save")
}

func (panickingStore) Watch(context.Context, string) iter.Seq2[agrenting.Record, error] {
	panic("watch")
}

func TestWrappedStoreWatchesOnlyIfInnerDoes(t *testing.T) {
	t.Parallel()
	file, err := agrenting.FileStore(t.TempDir())
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		store agrenting.Store
		watch bool
		text  string
	}{
		"memory":           {agrenting.MemoryStore(), true, "agrenting.MemoryStore()"},
		"file":             {file, false, fmt.Sprint(file)},
		"a user's":         {bareStore{agrenting.MemoryStore()}, false, "agrenting_test.bareStore"},
		"a user's Watcher": {panickingStore{}, true, "agrenting_test.panickingStore"},
	} {
		part := inNamespace(t, tc.store, "a")
		crypt := sealed(t, tc.store, agrenting.NewSealingKey())
		both := inNamespace(t, crypt, "b")
		for _, s := range []agrenting.Store{part, crypt, both} {
			_, ok := s.(agrenting.Watcher)
			assert.Equal(t, tc.watch, ok, name)
		}
		assert.Equal(t, "agrenting.Namespace("+tc.text+", a.)", fmt.Sprint(part), name)
		assert.Equal(t, "agrenting.Sealed("+tc.text+")", fmt.Sprint(crypt), name)
		assert.Equal(t, "agrenting.Namespace(agrenting.Sealed("+tc.text+"), b.)", fmt.Sprint(both), name)
	}
}

func TestWrappedStoreReportsChanges(t *testing.T) {
	t.Parallel()
	inner := agrenting.MemoryStore()
	s := inNamespace(t, sealed(t, inner, agrenting.NewSealingKey()), "a")
	rev := save(t, s, "one", "")
	w, ok := s.(agrenting.Watcher)
	require.True(t, ok)
	var seen []string
	for rec, err := range w.Watch(t.Context(), "key") {
		require.NoError(t, err)
		seen = append(seen, string(rec.Data))
		if len(seen) == 2 {
			break
		}
		save(t, s, "two", rev)
	}
	assert.Equal(t, []string{"one", "two"}, seen)
}

func TestWrappedStoreReturnsPanicsAsErrors(t *testing.T) {
	t.Parallel()
	part := inNamespace(t, panickingStore{}, "a")
	for name, s := range map[string]agrenting.Store{"namespace": part, "sealed": sealed(t, part, agrenting.NewSealingKey())} {
		_, err := s.Load(t.Context(), "key")
		require.ErrorContains(t, err, "panic", name)
		_, err = s.Save(t.Context(), "key", nil, "")
		require.ErrorContains(t, err, "panic", name)
		w, ok := s.(agrenting.Watcher)
		require.True(t, ok)
		for _, err := range w.Watch(t.Context(), "key") {
			require.ErrorContains(t, err, "panic", name)
		}
	}
	_, err := agrenting.LoadKeyState(t.Context(), panickingStore{})
	require.ErrorContains(t, err, "panic")
}

// misnamedStore is a user's store whose String panics.
type misnamedStore struct{ bareStore }

func (misnamedStore) String() string { panic("string") }

func TestWrappedStoreToleratesPanickingString(t *testing.T) {
	t.Parallel()
	inner := misnamedStore{bareStore{agrenting.MemoryStore()}}
	save(t, inner, "plain", "")
	crypt := sealed(t, inner, agrenting.NewSealingKey())
	_, err := crypt.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNotSealed)
	require.ErrorContains(t, err, "agrenting_test.misnamedStore")
	assert.Equal(t, "agrenting.Sealed(agrenting_test.misnamedStore)", fmt.Sprint(crypt))
}

func TestWrappedStoreRefusesAnEmptyRevision(t *testing.T) {
	t.Parallel()
	_, err := inNamespace(t, forgetfulStore{bareStore{agrenting.MemoryStore()}}, "a").Save(t.Context(), "key", nil, "")
	require.ErrorContains(t, err, "empty revision")
}

// forgetfulStore is a user's store that returns no revisions.
type forgetfulStore struct{ bareStore }

func (forgetfulStore) Save(context.Context, string, []byte, agrenting.Revision) (agrenting.Revision, error) {
	return "", nil
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
