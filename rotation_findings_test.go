package agrenting

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

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// changingSeed is a seed that somebody changes by hand.
func changingSeed(secret string) (set func(secret string), opt Option) {
	var p atomic.Pointer[Credential]
	set = func(s string) {
		c := APIKey(s)
		p.Store(&c)
	}
	set(secret)
	return set, WithCredentialSource(CredentialSourceFunc(func(context.Context) (Credential, error) { return *p.Load(), nil }))
}

// interposed lets another process act right before a save.
type interposed struct {
	Store
	other atomic.Pointer[func()]
}

func (s *interposed) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if f := s.other.Swap(nil); f != nil {
		(*f)()
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestTwoProcessesThatAdoptOneSeedAtOnceBothGoOn(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	set, seed := changingSeed(w.key.Secret)
	mine, err := FileStore(path)
	require.NoError(t, err)
	theirs, err := FileStore(path)
	require.NoError(t, err)
	store := &interposed{Store: mine}
	a := w.client(store, RotationPolicy{Every: -1}, seed)
	b := w.client(theirs, RotationPolicy{Every: -1}, seed)
	require.NoError(t, w.call(a))
	require.NoError(t, w.call(b))
	set(w.srv.NewKey(w.agent.ID).Secret)
	w.srv.RevokeKey(w.key.ID)
	first := func() { assert.NoError(t, w.call(b)) }
	store.other.Store(&first)
	require.NoError(t, w.call(a))
}

func TestASeedThatCannotBeTriedIsNotTakenForNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		set, seed := changingSeed(w.key.Secret)
		c := w.client(MemoryStore(), RotationPolicy{Every: -1}, seed)
		require.NoError(t, w.call(c))
		set(w.srv.NewKey(w.agent.ID).Secret)
		w.srv.RevokeKey(w.key.ID)
		w.srv.Fault("GET /api/v1/hirings/pending", agrentingtest.Status(503, ""))
		err := w.call(c)
		e, ok := errors.AsType[*RenewalError](err)
		require.True(t, ok, "a 401 would say that there is no other key, and that is not known: %v", err)
		advance(time.Until(e.RetryAt) + time.Millisecond)
		require.NoError(t, w.call(c))
		require.NoError(t, c.Close())
	})
}

func TestNothingIsRotatedInPlaceWhileTheOwnerCannotTellALostKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: InPlace, Every: -1, Owner: Static(UserToken(w.owner.Secret))})
		require.NoError(t, w.call(c))
		w.srv.Fault("GET /api/v1/agents/*", agrentingtest.Status(503, "").Times(4))
		w.srv.Fault(routeRotate, agrentingtest.DropAfter().Times(2))
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, StagePrepare, e.Stage)
		assert.True(t, w.srv.KeyAlive(w.key.Secret))
		require.NoError(t, w.call(c))
		_, err = c.Rotate(t.Context())
		require.NoError(t, err, "the answer is lost, and found again")
		require.NoError(t, w.call(c))
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// The platform hands the name of a key on to its successor, and the name may be
// the mark of an earlier rotation.
func TestALostKeyIsRevokedThoughItBearsTheMarkOfAnEarlierRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
		store := MemoryStore()
		owner := Static(UserToken(w.owner.Secret))
		first := w.client(store, RotationPolicy{Strategy: Overlap, Every: -1, Owner: owner})
		_, err := first.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, first.Close())
		c := w.client(store, RotationPolicy{Strategy: InPlace, Every: -1, Owner: owner})
		require.NoError(t, w.call(c))
		w.srv.Fault(routeRotate, agrentingtest.DropAfter().Times(2))
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.call(c))
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// A process that is stopped while it creates a key may go on when others have
// taken its rotation over and undone it.
func TestAKeyThatComesAfterItsRotationWasGivenUpIsRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		owner := Static(UserToken(w.owner.Secret))
		p := RotationPolicy{Strategy: Overlap, Every: -1, Owner: owner, Lease: 2 * time.Second, CallTimeout: time.Second, MaxAttempts: 1}
		var stopped atomic.Bool
		base := w.srv.Transport()
		slow := w.client(store, p, WithTransport(tripFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost && stopped.CompareAndSwap(false, true) {
				advance(time.Minute) // the machine sleeps
				r = r.WithContext(context.WithoutCancel(r.Context()))
			}
			return base.RoundTrip(r)
		})))
		require.NoError(t, w.call(slow))
		done := make(chan error)
		go func() { _, err := slow.Rotate(t.Context()); done <- err }()
		advance(10 * time.Second)
		// Another process finds the lease run out, and the platform out of order.
		w.srv.Fault("POST /api/v1/agents/*", agrentingtest.Status(http.StatusServiceUnavailable, "").Times(8))
		other := w.client(store, p)
		for range 3 {
			_, _ = other.Rotate(t.Context())
		}
		w.srv.ClearFaults()
		rec, _, err := loadRecord(t.Context(), store)
		require.NoError(t, err)
		require.Nil(t, rec.Intent, "it has given the rotation up")
		if err := <-done; err != nil { // it may find that its turn was taken
			_, ok := errors.AsType[*RotationError](err)
			require.True(t, ok, "%v", err)
		}
		require.NoError(t, w.call(slow))
		w.oneLiveKey(store)
		require.NoError(t, slow.Close())
		require.NoError(t, other.Close())
	})
}
