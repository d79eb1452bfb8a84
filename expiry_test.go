package agrenting_test

import (
	"context"
	"fmt"
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

func TestWithExpiry_keepsOtherFields(t *testing.T) {
	t.Parallel()
	end := time.Date(2099, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []agrenting.Credential{agrenting.APIKey("sk_sandbox_1"), agrenting.UserToken("ap_1"), agrenting.SessionToken("s1", time.Now())} {
		with := c.WithExpiry(end)
		assert.True(t, end.Equal(with.Expires()))
		assert.True(t, with.Equal(c))
		assert.Equal(t, c.Environment(), with.Environment())
		assert.Equal(t, c.Fingerprint(), with.Fingerprint())
		assert.Contains(t, with.String(), "expires 2099-03-01T12:00:00Z")
		assert.Zero(t, with.WithExpiry(time.Time{}).Expires())
	}
	assert.True(t, agrenting.Credential{}.WithExpiry(end).IsZero())
}

func TestKeyWithExpiry_isRenewedAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			return agrenting.APIKey(fmt.Sprint("k", n.Add(1))).WithExpiry(time.Now().Add(10 * time.Minute)), nil
		})
		var base sdktest.Recorder
		c := sdktest.ClientOver(t, &base, src)
		require.NoError(t, list(t, c))
		assert.Equal(t, 10*time.Minute, time.Until(c.Status().Expires))
		sdktest.Advance(9 * time.Minute)
		synctest.Wait()
		assert.EqualValues(t, 2, n.Load(), "also without requests")
		require.NoError(t, list(t, c))
		assert.Equal(t, "k2", sdktest.SecretOf(base.Requests()[1].Header))
	})
}

// The session of a key that expires ends with it, and is not exchanged again and again
// before that.
func TestKeyWithExpiry_session_doesNotOutliveIt(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func() agrenting.Store{"alone": func() agrenting.Store { return nil }, "shared": agrenting.MemoryStore} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewSessionWorld(t, agrentingtest.WithSessionTTL(20*time.Hour), agrentingtest.WithoutRateLimits())
				second := w.Server.NewKey(w.Agent.ID)
				end := time.Now().Add(time.Hour)
				var next atomic.Bool
				src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
					if next.Load() {
						return agrenting.APIKey(second.Secret), nil
					}
					return agrenting.APIKey(w.Key.Secret).WithExpiry(end), nil
				})
				c := w.Client(agrenting.WithCredentialSource(src), agrenting.WithSession(agrenting.SessionPolicy{Store: store()}))
				require.NoError(t, w.Call(c))
				assert.True(t, end.Equal(c.Status().Expires), "%v", c.Status().Expires)
				cred, err := c.Credential(t.Context())
				require.NoError(t, err)
				assert.True(t, end.Equal(cred.Expires()))

				for time.Until(end) > time.Minute {
					require.NoError(t, w.Call(c))
					sdktest.Advance(20 * time.Second)
				}
				assert.Equal(t, 1, w.Exchanges(), "another session of the key would end at the same time")
				next.Store(true)
				sdktest.Advance(2 * time.Minute)
				require.NoError(t, w.Call(c))
				assert.Equal(t, 2, w.Exchanges())
				assert.Zero(t, w.Unauthorized())
				assert.Greater(t, time.Until(c.Status().Expires), 19*time.Hour)
			})
		})
	}
}

func TestExpiredKey_replacedOrDecidedByThePlatform(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewSessionWorld(t, agrentingtest.WithoutRateLimits())
		key := agrenting.APIKey(w.Key.Secret)
		past := key.WithExpiry(time.Now().Add(-time.Second))
		require.NoError(t, w.Call(w.Client(agrenting.WithCredential(past))), "a clock may be wrong")
		assert.Equal(t, 1, w.Exchanges())

		src := sdktest.NewSource("")
		src.Replace(past)
		c := w.Client(agrenting.WithCredentialSource(src))
		require.NoError(t, w.Call(c))
		assert.Greater(t, time.Until(c.Status().Expires), time.Minute, "the session does not end with a key that is alive")

		w.Server.RevokeKey(w.Key.ID)
		w.Server.RevokeSessions()
		fixed := w.Client(agrenting.WithCredential(past))
		require.ErrorIs(t, w.Call(fixed), agrenting.ErrUnauthorized)
	})
}
