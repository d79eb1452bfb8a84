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

// memory returns a store that has the record "key" with the data "1".
func memory(t *testing.T) (agrenting.Store, agrenting.Revision) {
	t.Helper()
	s := agrenting.MemoryStore()
	rev, err := s.Save(t.Context(), "key", []byte("1"), "")
	require.NoError(t, err)
	return s, rev
}

func dataOf(t *testing.T, s agrenting.Store) string {
	t.Helper()
	r, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	return string(r.Data)
}

func save(t *testing.T, s agrenting.Store, data string, previous agrenting.Revision) (agrenting.Revision, error) {
	t.Helper()
	return s.Save(t.Context(), "key", []byte(data), previous)
}

func TestFaultlessStoreConforms(t *testing.T) {
	t.Parallel()
	s := storetest.Faulty(agrenting.MemoryStore(), storetest.Script(nil))
	storetest.Test(t, func(*testing.T) agrenting.Store { return s })
}

func TestFailBeforeDoesNothing(t *testing.T) {
	t.Parallel()
	inner, rev := memory(t)
	s := storetest.Faulty(inner, storetest.Script(map[int]storetest.Fault{
		0: storetest.FailBefore(errBoom), 2: storetest.FailBefore(errBoom),
	}))
	_, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, errBoom)
	_, err = s.Load(t.Context(), "key")
	require.NoError(t, err)
	_, err = save(t, s, "2", rev)
	require.ErrorIs(t, err, errBoom)
	assert.Equal(t, "1", dataOf(t, inner))
	_, err = save(t, s, "2", rev)
	require.NoError(t, err)
}

func TestFailAfterTakesEffect(t *testing.T) {
	t.Parallel()
	inner, rev := memory(t)
	s := storetest.Faulty(inner, storetest.OnSave(map[int]storetest.Fault{0: storetest.FailAfter(errBoom)}))
	next, err := save(t, s, "2", rev)
	require.ErrorIs(t, err, errBoom)
	assert.Empty(t, next)
	assert.Equal(t, "2", dataOf(t, inner))
	_, err = save(t, s, "3", rev)
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite, "the save has taken effect")

	s = storetest.Faulty(inner, storetest.OnLoad(map[int]storetest.Fault{1: storetest.FailAfter(errBoom)}))
	assert.Equal(t, "2", dataOf(t, s))
	r, err := s.Load(t.Context(), "key")
	require.ErrorIs(t, err, errBoom)
	assert.Empty(t, r.Revision)
	assert.Empty(t, r.Data)
}

func TestConflictLastsUntilALoad(t *testing.T) {
	t.Parallel()
	inner, rev := memory(t)
	s := storetest.Faulty(inner, storetest.OnSave(map[int]storetest.Fault{0: storetest.Conflict()}))
	for range 2 {
		_, err := save(t, s, "2", rev)
		require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	}
	r, err := s.Load(t.Context(), "key")
	require.NoError(t, err)
	assert.Equal(t, "1", string(r.Data))
	_, err = save(t, s, "2", r.Revision)
	require.NoError(t, err)

	s = storetest.Faulty(agrenting.MemoryStore(), func(storetest.Operation) storetest.Fault { return storetest.Conflict() })
	_, err = save(t, s, "1", "")
	require.ErrorIs(t, err, agrenting.ErrConflictingWrite)
	_, err = s.Load(t.Context(), "key")
	require.ErrorIs(t, err, agrenting.ErrNoRecord, "a load is not affected")
}

func TestDelayEndsWithTheContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inner, rev := memory(t)
		s := storetest.Faulty(inner, storetest.Script(map[int]storetest.Fault{
			0: storetest.Delay(time.Minute), 1: storetest.FailBefore(errBoom).Delayed(time.Hour), 2: storetest.Delay(time.Hour),
		}))
		began := time.Now()
		_, err := s.Load(t.Context(), "key")
		require.NoError(t, err)
		assert.Equal(t, time.Minute, time.Since(began))
		_, err = s.Load(t.Context(), "key")
		require.ErrorIs(t, err, errBoom)
		assert.Equal(t, 61*time.Minute, time.Since(began))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Save(ctx, "key", []byte("2"), rev)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, "1", dataOf(t, s))
	})
}

func TestPlanSeesEveryOperation(t *testing.T) {
	t.Parallel()
	inner, rev := memory(t)
	var seen []storetest.Operation
	s := storetest.Faulty(inner, func(op storetest.Operation) storetest.Fault {
		seen = append(seen, op)
		return storetest.Fault{}
	})
	assert.Equal(t, "1", dataOf(t, s))
	_, err := save(t, s, "2", rev)
	require.NoError(t, err)
	_, err = s.Load(t.Context(), "other")
	require.ErrorIs(t, err, agrenting.ErrNoRecord)
	assert.Equal(t, []storetest.Operation{
		{Index: 0, Nth: 0, Kind: storetest.Load, Name: "key"},
		{Index: 1, Nth: 0, Kind: storetest.Save, Name: "key", Data: []byte("2"), Previous: rev},
		{Index: 2, Nth: 1, Kind: storetest.Load, Name: "other"},
	}, seen)
}

func TestOnlyCountsOneRecord(t *testing.T) {
	t.Parallel()
	inner, rev := memory(t)
	s := storetest.Faulty(inner, storetest.Only("key", storetest.OnSave(map[int]storetest.Fault{1: storetest.FailBefore(errBoom)})))
	var other agrenting.Revision
	for n := range 3 {
		var err error
		other, err = s.Save(t.Context(), "other", []byte{byte(n)}, other)
		require.NoError(t, err)
	}
	rev, err := save(t, s, "2", rev)
	require.NoError(t, err)
	_, err = save(t, s, "3", rev)
	require.ErrorIs(t, err, errBoom)
	_, err = save(t, s, "3", rev)
	require.NoError(t, err)

	s = storetest.Faulty(inner, storetest.Only("key", storetest.Script(map[int]storetest.Fault{1: storetest.FailBefore(errBoom)})))
	for range 3 {
		_, err = s.Load(t.Context(), "other")
		require.NoError(t, err)
	}
	assert.Equal(t, "3", dataOf(t, s))
	_, err = s.Load(t.Context(), "key")
	require.ErrorIs(t, err, errBoom)
}

func TestFaultyIsAWatcherIfItsStoreIs(t *testing.T) {
	t.Parallel()
	inner, _ := memory(t)
	assert.Implements(t, (*agrenting.Watcher)(nil), storetest.Faulty(inner, storetest.Script(nil)))
	_, ok := storetest.Faulty(struct{ agrenting.Store }{inner}, storetest.Script(nil)).(agrenting.Watcher)
	assert.False(t, ok)
}
