package rotation_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestTwoProcessesAdoptInitialKeyConcurrently(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	set, seed := sdktest.ChangingKey(w.Key.Secret)
	mine, err := agrenting.FileStore(path)
	require.NoError(t, err)
	theirs, err := agrenting.FileStore(path)
	require.NoError(t, err)
	store := &sdktest.Interposed{Store: mine}
	a := w.Client(store, agrenting.RotationPolicy{Every: -1}, seed)
	b := w.Client(theirs, agrenting.RotationPolicy{Every: -1}, seed)
	require.NoError(t, w.Call(a))
	require.NoError(t, w.Call(b))
	set(w.Server.NewKey(w.Agent.ID).Secret)
	w.Server.RevokeKey(w.Key.ID)
	first := func() { assert.NoError(t, w.Call(b)) }
	store.Other.Store(&first)
	require.NoError(t, w.Call(a))
}

func TestUntestableInitialKeyIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		set, seed := sdktest.ChangingKey(w.Key.Secret)
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Every: -1}, seed)
		require.NoError(t, w.Call(c))
		set(w.Server.NewKey(w.Agent.ID).Secret)
		w.Server.RevokeKey(w.Key.ID)
		w.Server.Fault(sdktest.RouteVerify, agrentingtest.Status(503, "").Always())
		err := w.Call(c)
		e, ok := errors.AsType[*agrenting.RenewalError](err)
		require.True(t, ok, "a 401 would say that there is no other key, and that is not known: %v", err)
		w.Server.ClearFaults()
		sdktest.Advance(time.Until(e.RetryAt) + time.Millisecond)
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Close())
	})
}

// A route that refuses every caller says nothing about the key.
func TestKeyThatIsAliveIsNotReplacedByTheInitialKey(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{"envelope": "UNAUTHORIZED", "page": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				set, initial := sdktest.ChangingKey(w.Key.Secret)
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Every: -1}, initial)
				require.NoError(t, w.Call(c))
				set(w.Server.NewKey(w.Agent.ID).Secret)
				w.Server.Fault("GET /api/v1/tasks", agrentingtest.Status(http.StatusUnauthorized, code).Always())
				for range 3 {
					require.ErrorIs(t, w.Call(c), agrenting.ErrUnauthorized)
				}
				w.Server.ClearFaults()
				require.NoError(t, w.Call(c))
				rec, _, err := sdktest.LoadRecord(t.Context(), store)
				require.NoError(t, err)
				assert.Equal(t, w.Key.Secret, rec.Current.Credential.Reveal())
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestInPlaceRotationNeedsReadableKeyList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1, Owner: agrenting.Static(agrenting.UserToken(w.Owner.Secret))})
		require.NoError(t, w.Call(c))
		w.Server.Fault("GET /api/v1/agents/*", agrentingtest.Status(503, "").Times(4))
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.DropAfter().Times(2))
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*agrenting.RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, agrenting.StagePrepare, e.Stage)
		assert.True(t, w.Server.KeyAlive(w.Key.Secret))
		require.NoError(t, w.Call(c))
		_, err = c.Rotate(t.Context())
		require.NoError(t, err, "the response is lost, and found again")
		require.NoError(t, w.Call(c))
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// The platform hands the name of a key on to its successor, and the name may be
// the mark of an earlier rotation.
func TestLostKeyOfEarlierRotationIsRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
		store := agrenting.MemoryStore()
		owner := agrenting.Static(agrenting.UserToken(w.Owner.Secret))
		first := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1, Owner: owner})
		_, err := first.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, first.Close())
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: -1, Owner: owner})
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.DropAfter().Times(2))
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.Call(c))
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// A process that is stopped while it creates a key may continue when others have
// taken its rotation over and undone it.
func TestKeyIssuedAfterAbandonedRotationIsRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		owner := agrenting.Static(agrenting.UserToken(w.Owner.Secret))
		p := agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1, Owner: owner, Lease: 2 * time.Second, CallTimeout: time.Second, MaxAttempts: 1}
		var stopped atomic.Bool
		base := w.Server.Transport()
		slow := w.Client(store, p, agrenting.WithTransport(sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost && stopped.CompareAndSwap(false, true) {
				sdktest.Advance(time.Minute) // the machine sleeps
				r = r.WithContext(context.WithoutCancel(r.Context()))
			}
			return base.RoundTrip(r)
		})))
		require.NoError(t, w.Call(slow))
		done := make(chan error)
		go func() { _, err := slow.Rotate(t.Context()); done <- err }()
		sdktest.Advance(10 * time.Second)
		// Another process finds the lease run out, and the platform out of order.
		w.Server.Fault("POST /api/v1/agents/*", agrentingtest.Status(http.StatusServiceUnavailable, "").Times(8))
		other := w.Client(store, p)
		for range 3 {
			_, _ = other.Rotate(t.Context())
		}
		w.Server.ClearFaults()
		rec, _, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		require.Nil(t, rec.Intent, "it has given the rotation up")
		if err := <-done; err != nil { // it may find that its turn was taken
			_, ok := errors.AsType[*agrenting.RotationError](err)
			require.True(t, ok, "%v", err)
		}
		require.NoError(t, w.Call(slow))
		w.OneLiveKey(store)
		require.NoError(t, slow.Close())
		require.NoError(t, other.Close())
	})
}

func TestKeyBeingReplacedIsNotReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		c := w.Client(agrenting.MemoryStore(), agrenting.RotationPolicy{Every: -1, Strategy: agrenting.InPlace})
		require.NoError(t, w.Call(c))
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.Delay(time.Second))
		done := make(chan error)
		go func() { _, err := c.Rotate(t.Context()); done <- err }()
		sdktest.Advance(500 * time.Millisecond)
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		require.NoError(t, <-done)
		assert.NotContains(t, cred.Reveal(), w.Key.Secret)
	})
}
