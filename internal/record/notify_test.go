package record

import (
	"context"
	"iter"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/seal"
)

// quiet is a store that cannot notify.
type quiet struct{ inner Store }

func (s quiet) Load(ctx context.Context, name string) (Raw, error) { return s.inner.Load(ctx, name) }

func (s quiet) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	return s.inner.Save(ctx, name, data, previous)
}

func (s quiet) Watch(ctx context.Context, name string) iter.Seq2[Raw, error] {
	return s.inner.Watch(ctx, name)
}

func TestMemoryNotifiesThroughStoresAroundIt(t *testing.T) {
	t.Parallel()
	for name, around := range map[string]func(Store) Store{
		"bare":               func(s Store) Store { return s },
		"namespace":          func(s Store) Store { return NewNamespace(s, "tenant-1") },
		"sealed":             func(s Store) Store { return NewSealed(s, "here", []seal.Key{seal.NewKey()}) },
		"sealed namespace":   func(s Store) Store { return NewSealed(NewNamespace(s, "a"), "here", []seal.Key{seal.NewKey()}) },
		"namespace, sealed":  func(s Store) Store { return NewNamespace(NewSealed(s, "here", []seal.Key{seal.NewKey()}), "a") },
		"nested namespaces":  func(s Store) Store { return NewNamespace(NewNamespace(s, "a"), "b") },
		"another record too": func(s Store) Store { notify(s, "other", func() { t.Error("of another record") }); return s },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, told := around(NewMemory()), 0
			stop := notify(s, "key", func() { told++ })
			require.NotNil(t, stop)
			revision, err := s.Save(t.Context(), "key", []byte("1"), "")
			require.NoError(t, err)
			_, err = s.Save(t.Context(), "key", []byte("2"), "")
			require.ErrorIs(t, err, ErrConflict)
			assert.Equal(t, 1, told, "a conflict changes nothing")
			stop()
			_, err = s.Save(t.Context(), "key", []byte("2"), revision)
			require.NoError(t, err)
			assert.Equal(t, 1, told, "it was stopped")
		})
	}
	assert.Nil(t, notify(quiet{NewMemory()}, "key", func() {}))
	assert.Nil(t, notify(NewNamespace(quiet{NewMemory()}, "a"), "key", func() {}))
}

func TestMemoryFollowerHasNoRecord(t *testing.T) {
	t.Parallel()
	s := NewMemory()
	stop := notify(s, "key", func() {})
	defer stop()
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, ErrNoRecord)
}
