package rotation_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// sourceTimeout is how long a source of keys may take.
const sourceTimeout = 26 * time.Second

// rotateWithin rotates a key and fails the test if no error of the rotation is returned
// within a time limit.
func rotateWithin(t *testing.T, c *agrenting.Client, limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err := c.Rotate(ctx)
	_, ok := errors.AsType[*agrenting.RotationError](err)
	require.True(t, ok, "%v", err)
	require.ErrorContains(t, err, "RotationPolicy.Owner")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestHangingOwnerSourceEndsRotation(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				owner := &sdktest.Source{Cred: agrenting.UserToken(w.Owner.Secret)}
				store := agrenting.MemoryStore()
				p := owned(w, s)
				p.Owner = owner
				c := w.Client(store, p)
				require.NoError(t, w.Call(c))
				release := owner.Hold()
				rotateWithin(t, c, sourceTimeout+defaultCallTimeout)
				require.NoError(t, w.Call(c))
				release()
				_, err := c.Rotate(t.Context())
				require.NoError(t, err, "the lease was released")
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

// The response with the new key is lost, and then the source of the owner credential
// stops responding. Requests wait at that time.
func TestHangingOwnerSourceReleasesRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		owner := &sdktest.Source{Cred: agrenting.UserToken(w.Owner.Secret)}
		platform := w.Server.Transport()
		var release func()
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			resp, err := platform.RoundTrip(r)
			if err == nil && release == nil && strings.HasSuffix(r.URL.Path, "/rotate-key") {
				release = owner.Hold()
				_ = resp.Body.Close()
				return sdktest.Reply(http.StatusBadGateway, ""), nil
			}
			return resp, err
		})
		store := agrenting.MemoryStore()
		p := owned(w, agrenting.InPlace)
		p.Owner = owner
		c := w.Client(store, p, agrenting.WithTransport(base))
		require.NoError(t, w.Call(c))
		rotateWithin(t, c, sourceTimeout+2*time.Second)
		require.False(t, w.Server.KeyAlive(w.Key.Secret))
		release()
		sdktest.Advance(2 * time.Second)
		began := time.Now()
		require.NoError(t, w.Call(c))
		assert.Less(t, time.Since(began), time.Second)
		sdktest.Advance(time.Minute)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// The stored key is dead, and the source of the initial key does not respond. The owner
// issues another key, and no request fails.
func TestHangingInitialSourceDoesNotPreventRepair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		initial := sdktest.NewSource(w.Key.Secret)
		store := agrenting.MemoryStore()
		c := w.Client(store, owned(w, agrenting.InPlace), agrenting.WithCredentialSource(initial))
		require.NoError(t, w.Call(c))
		w.Server.RevokeKey(w.Key.ID)
		release := initial.Hold()
		began := time.Now()
		require.NoError(t, w.Call(c))
		assert.Less(t, time.Since(began), sourceTimeout+time.Second)
		release()
		sdktest.Advance(time.Minute)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// The source of the initial key does not respond while a rotation fills the store.
func TestHangingInitialSourceEndsRotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		initial := sdktest.NewSource(w.Key.Secret)
		release := initial.Hold()
		store := agrenting.MemoryStore()
		c := w.Client(store, owned(w, agrenting.InPlace), agrenting.WithCredentialSource(initial))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.Rotate(ctx)
		_, ok := errors.AsType[*agrenting.RotationError](err)
		require.True(t, ok, "%v", err)
		release()
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

// A command may take longer than one call of the platform.
func TestSlowSourcesAreWaitedFor(t *testing.T) {
	t.Parallel()
	const slow = 20 * time.Second
	t.Run("owner", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewRotationWorld(t)
			owner := &sdktest.Source{Cred: agrenting.UserToken(w.Owner.Secret)}
			store := agrenting.MemoryStore()
			p := owned(w, agrenting.Overlap)
			p.Owner = owner
			c := w.Client(store, p)
			require.NoError(t, w.Call(c))
			time.AfterFunc(slow, owner.Hold())
			_, err := c.Rotate(t.Context())
			require.NoError(t, err)
			w.OneLiveKey(store)
			require.NoError(t, c.Close())
		})
	})
	t.Run("initial key", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := sdktest.NewRotationWorld(t)
			initial := sdktest.NewSource(w.Key.Secret)
			store := agrenting.MemoryStore()
			c := w.Client(store, agrenting.RotationPolicy{Every: -1}, agrenting.WithCredentialSource(initial))
			require.NoError(t, w.Call(c))
			w.Server.RevokeKey(w.Key.ID)
			initial.Replace(agrenting.APIKey(w.Server.NewKey(w.Agent.ID).Secret))
			time.AfterFunc(slow, initial.Hold())
			require.NoError(t, w.Call(c))
			require.NoError(t, c.Close())
		})
	})
}
