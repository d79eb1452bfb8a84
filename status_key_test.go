package agrenting_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

const day = 24 * time.Hour

// inEachWay runs a test with the key in use, and with sessions.
func inEachWay(t *testing.T, test func(w *sdktest.RotationWorld, opts ...agrenting.Option)) {
	t.Helper()
	for name, opts := range map[string][]agrenting.Option{"key": nil, "sessions": {agrenting.WithSession()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { test(sdktest.NewRotationWorld(t), opts...) })
		})
	}
}

func TestStatusKey_initialKey(t *testing.T) {
	t.Parallel()
	inEachWay(t, func(w *sdktest.RotationWorld, opts ...agrenting.Option) {
		t := w.T
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Every: 30 * day}, opts...)
		assert.Zero(t, c.Status().Key, "the store was not loaded yet")
		require.NoError(t, w.Call(c))
		began := time.Now()
		sdktest.Advance(day)
		k := c.Status().Key
		assert.Equal(t, agrenting.APIKey(w.Key.Secret).Fingerprint(), k.Fingerprint)
		assert.EqualValues(t, 1, k.Generation)
		assert.WithinDuration(t, began, k.Created, time.Minute)
		assert.InDelta(t, day, k.Age, float64(time.Minute))
		assert.WithinRange(t, k.Due, began.Add(26*day), began.Add(30*day))
		assert.False(t, k.Overdue)
		assert.Zero(t, k.LastRotation)
		require.NoError(t, k.LastError)
		assert.Equal(t, "agrenting.MemoryStore()", c.Status().Store)
	})
}

func TestStatusKey_rotated(t *testing.T) {
	t.Parallel()
	inEachWay(t, func(w *sdktest.RotationWorld, opts ...agrenting.Option) {
		t := w.T
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Every: 30 * day}, opts...)
		other := w.Client(store, agrenting.RotationPolicy{Every: 30 * day}, opts...)
		require.NoError(t, w.Call(c))
		require.NoError(t, w.Call(other))
		sdktest.Advance(31 * day)
		require.NoError(t, w.Call(c))
		require.NoError(t, w.Call(other))
		for who, client := range map[string]*agrenting.Client{"rotates": c, "follows": other} {
			k := client.Status().Key
			assert.EqualValues(t, 2, k.Generation, who)
			assert.Less(t, k.Age, 6*day, who)
			assert.WithinDuration(t, k.Created, k.LastRotation, time.Minute, who)
			assert.False(t, k.Overdue, who)
			require.NoError(t, k.LastError, who)
		}
	})
}

func TestStatusKey_rotationFails_overdue(t *testing.T) {
	t.Parallel()
	inEachWay(t, func(w *sdktest.RotationWorld, opts ...agrenting.Option) {
		t := w.T
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Every: 30 * day}, opts...)
		require.NoError(t, w.Call(c))
		w.Server.Fault("POST /api/v1/agents/*", agrentingtest.Status(403, "FORBIDDEN").Always())
		w.Server.Fault("POST /api/v1/auth/rotate-key", agrentingtest.Status(403, "FORBIDDEN").Always())
		sdktest.Advance(31 * day)
		require.NoError(t, w.Call(c))
		s := c.Status()
		k := s.Key
		assert.True(t, k.Overdue)
		assert.EqualValues(t, 1, k.Generation)
		assert.Positive(t, k.Failures)
		var failed *agrenting.RotationError
		require.ErrorAs(t, k.LastError, &failed)
		assert.True(t, k.RetryAt.After(time.Now()), k.RetryAt)
		assert.WithinRange(t, k.LastRotation, k.Due, time.Now())
		assert.Contains(t, []agrenting.State{agrenting.StateReady, agrenting.StateRenewing}, s.State, "requests are sent with the old key")
		require.NoError(t, s.Ready())

		w.Server.ClearFaults()
		sdktest.Advance(7 * time.Hour) // the longest pause
		require.NoError(t, w.Call(c))
		k = c.Status().Key
		assert.EqualValues(t, 2, k.Generation)
		require.NoError(t, k.LastError)
		assert.Zero(t, k.Failures)
		assert.Zero(t, k.RetryAt)
		assert.False(t, k.Overdue)
	})
}

func TestStatusKey_anotherProcessRotates_errorEnds(t *testing.T) {
	t.Parallel()
	inEachWay(t, func(w *sdktest.RotationWorld, opts ...agrenting.Option) {
		t := w.T
		store := agrenting.MemoryStore()
		p := agrenting.RotationPolicy{Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret))}
		c := w.Client(store, agrenting.RotationPolicy{}, opts...)
		other := w.Client(store, p, opts...)
		require.NoError(t, w.Call(c))
		w.Server.Fault("*", agrentingtest.Status(403, "FORBIDDEN").Always())
		_, err := c.Rotate(t.Context())
		require.Error(t, err)
		require.Error(t, c.Status().Key.LastError)
		w.Server.ClearFaults()
		_, err = other.Rotate(t.Context())
		require.NoError(t, err)
		sdktest.Advance(time.Minute)
		require.NoError(t, w.Call(c))
		synctest.Wait()
		k := c.Status().Key
		assert.GreaterOrEqual(t, k.Generation, uint64(2))
		require.NoError(t, k.LastError)
		assert.Equal(t, other.Status().Key.Fingerprint, k.Fingerprint)
	})
}

func TestStatusKey_noSchedule_overdueAfter90Days(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)), agrenting.WithStore(agrenting.MemoryStore()))
		require.NoError(t, w.Call(c))
		sdktest.Advance(89 * day)
		require.NoError(t, w.Call(c))
		assert.False(t, c.Status().Key.Overdue)
		sdktest.Advance(2 * day)
		k := c.Status().Key
		assert.True(t, k.Overdue)
		assert.Zero(t, k.Due)
	})
}

func TestStatusStore(t *testing.T) {
	t.Parallel()
	files, err := agrenting.FileStore(t.TempDir())
	require.NoError(t, err)
	for name, c := range map[string]struct {
		opts []agrenting.Option
		want string
	}{
		"none":               {},
		"of the key":         {[]agrenting.Option{agrenting.WithStore(agrenting.MemoryStore())}, "agrenting.MemoryStore()"},
		"folder":             {[]agrenting.Option{agrenting.WithStore(files)}, "agrenting.FileStore("},
		"of the sessions":    {[]agrenting.Option{agrenting.WithSession(agrenting.SessionPolicy{Store: agrenting.MemoryStore()})}, "agrenting.MemoryStore()"},
		"both":               {[]agrenting.Option{agrenting.WithStore(files), agrenting.WithSession(agrenting.SessionPolicy{Store: agrenting.MemoryStore()})}, "agrenting.FileStore("},
		"of a type":          {[]agrenting.Option{agrenting.WithStore(sdktest.NewFailingStore())}, "*sdktest.FailingStore"},
		"not used":           {[]agrenting.Option{agrenting.WithAnonymous(), agrenting.WithStore(files)}, ""},
		"with a secret name": {[]agrenting.Option{agrenting.WithStore(namedStore{files, "db:ap_Zq7Wm3Xp9Rt5Kv2Ln8Yd4"})}, "db:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := append([]agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("k1"))}, c.opts...)
			if name == "not used" {
				opts = append([]agrenting.Option{agrenting.WithoutEnvironment()}, c.opts...)
			}
			client, err := agrenting.New(opts...)
			require.NoError(t, err)
			defer client.Close()
			got := client.Status().Store
			assert.Contains(t, got, c.want)
			if c.want == "" {
				assert.Empty(t, got)
			}
			assert.NotContains(t, got, "Zq7Wm3")
		})
	}
}

type namedStore struct {
	agrenting.Store

	name string
}

func (s namedStore) String() string { return s.name }

func TestStatus_storeFails_saysSo(t *testing.T) {
	t.Parallel()
	inEachWay(t, func(w *sdktest.RotationWorld, opts ...agrenting.Option) {
		t := w.T
		store := sdktest.NewFailingStore()
		c := w.Client(store, agrenting.RotationPolicy{}, opts...)
		require.NoError(t, w.Call(c))
		errDown := errors.New("database down")
		store.Failing("load", errDown)
		sdktest.Advance(time.Minute)
		require.NoError(t, w.Call(c))
		sdktest.Advance(time.Second)
		s := c.Status()
		require.ErrorIs(t, s.StoreError, errDown)
		assert.NotEmpty(t, s.Key.Fingerprint, "what is in memory")
		require.NoError(t, s.Ready())
	})
}
