package storetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest/storetest"
)

var errBoom = errors.New("boom")

func memory() agrenting.KeyStore {
	return agrenting.OldMemoryStore(agrenting.APIKey("sk_faulty_0123456789"))
}

func rec(generation uint64) agrenting.KeyRecord {
	return agrenting.KeyRecord{
		Generation: generation, Current: agrenting.StoredKey{Credential: agrenting.APIKey("sk_faulty_9876543210")},
	}
}

func generationOf(t *testing.T, s agrenting.KeyStore) uint64 {
	t.Helper()
	r, _, err := s.Load(t.Context())
	require.NoError(t, err)
	return r.Generation
}

func TestFaultlessStoreConforms(t *testing.T) {
	t.Parallel()
	storetest.TestStore(t, func(*testing.T) agrenting.KeyStore {
		return storetest.Faulty(agrenting.OldMemoryStore(agrenting.Credential{}), storetest.Script(nil))
	})
}

func TestFailBeforeDoesNothing(t *testing.T) {
	t.Parallel()
	inner := memory()
	s := storetest.Faulty(inner, storetest.Script(map[int]storetest.Fault{
		0: storetest.FailBefore(errBoom), 2: storetest.FailBefore(errBoom),
	}))
	_, _, err := s.Load(t.Context())
	require.ErrorIs(t, err, errBoom)
	_, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	_, err = s.Save(t.Context(), rec(2), rev)
	require.ErrorIs(t, err, errBoom)
	assert.EqualValues(t, 1, generationOf(t, inner))
	_, err = s.Save(t.Context(), rec(2), rev)
	require.NoError(t, err)
}

func TestFailAfterTakesEffect(t *testing.T) {
	t.Parallel()
	inner := memory()
	s := storetest.Faulty(inner, storetest.OnSave(map[int]storetest.Fault{0: storetest.FailAfter(errBoom)}))
	_, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	next, err := s.Save(t.Context(), rec(2), rev)
	require.ErrorIs(t, err, errBoom)
	assert.Empty(t, next)
	assert.EqualValues(t, 2, generationOf(t, inner))
	_, err = s.Save(t.Context(), rec(3), rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite, "who repeats it finds out")

	s = storetest.Faulty(inner, storetest.OnLoad(map[int]storetest.Fault{1: storetest.FailAfter(errBoom)}))
	assert.EqualValues(t, 2, generationOf(t, s))
	r, rev, err := s.Load(t.Context())
	require.ErrorIs(t, err, errBoom)
	assert.Empty(t, rev)
	assert.True(t, r.Current.IsZero())
}

func TestConflictIsMadeGoodByALoadOnly(t *testing.T) {
	t.Parallel()
	s := storetest.Faulty(memory(), storetest.OnSave(map[int]storetest.Fault{0: storetest.Conflict()}))
	_, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	for range 2 {
		_, err = s.Save(t.Context(), rec(2), rev)
		require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	}
	_, rev, err = s.Load(t.Context())
	require.NoError(t, err)
	_, err = s.Save(t.Context(), rec(2), rev)
	require.NoError(t, err)

	s = storetest.Faulty(agrenting.OldMemoryStore(agrenting.Credential{}), func(storetest.Operation) storetest.Fault { return storetest.Conflict() })
	_, err = s.Save(t.Context(), rec(1), "")
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	_, _, err = s.Load(t.Context())
	require.ErrorIs(t, err, agrenting.ErrNoCredential, "a load is not touched")
}

func TestDelayWaitsUnlessTheContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Faulty(memory(), storetest.Script(map[int]storetest.Fault{
			0: storetest.Delay(time.Minute), 1: storetest.FailBefore(errBoom).Delayed(time.Hour), 2: storetest.Delay(time.Hour),
		}))
		began := time.Now()
		_, rev, err := s.Load(t.Context())
		require.NoError(t, err)
		assert.Equal(t, time.Minute, time.Since(began))
		_, _, err = s.Load(t.Context())
		require.ErrorIs(t, err, errBoom)
		assert.Equal(t, 61*time.Minute, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Save(ctx, rec(2), rev)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.EqualValues(t, 1, generationOf(t, s))
	})
}

func TestPlanSeesEveryOperation(t *testing.T) {
	t.Parallel()
	var seen []storetest.Operation
	s := storetest.Faulty(memory(), func(op storetest.Operation) storetest.Fault {
		seen = append(seen, op)
		return storetest.Fault{}
	})
	_, rev, err := s.Load(t.Context())
	require.NoError(t, err)
	_, err = s.Save(t.Context(), rec(2), rev)
	require.NoError(t, err)
	assert.EqualValues(t, 2, generationOf(t, s))
	require.Len(t, seen, 3)
	assert.Equal(t, storetest.Operation{Index: 0, Nth: 0, Kind: storetest.Load}, seen[0])
	assert.Equal(t, storetest.Save, seen[1].Kind)
	assert.Equal(t, 1, seen[1].Index)
	assert.Zero(t, seen[1].Nth)
	assert.EqualValues(t, 2, seen[1].Record.Generation)
	assert.Equal(t, rev, seen[1].Previous)
	assert.Equal(t, storetest.Operation{Index: 2, Nth: 1, Kind: storetest.Load}, seen[2])
}

func TestFaultyIsAWatcherIfItsStoreIs(t *testing.T) {
	t.Parallel()
	assert.Implements(t, (*agrenting.KeyWatcher)(nil), storetest.Faulty(memory(), storetest.Script(nil)))
	_, ok := storetest.Faulty(agrenting.ReadOnlyStore(nil), storetest.Script(nil)).(agrenting.KeyWatcher)
	assert.False(t, ok)
}
