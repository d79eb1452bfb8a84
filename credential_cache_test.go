package agrenting

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
)

func TestCloseReleasesRequestsAtGate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := new(gate.Gate)
		g.Shut()
		k := newFixedCache("fixed", &preparedCredential{cred: APIKey("k1"), gate: g}, &core{evidence: evidence.NewBook(nil)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		left := make(chan error, 1)
		go func() { _, err := k.enter(ctx); left <- err }()
		synctest.Wait()
		require.NoError(t, k.close())
		g.Pass()
		require.ErrorIs(t, <-left, ErrClosed)
	})
}

func TestSameSecretOfOtherKindIsNewGeneration(t *testing.T) {
	t.Parallel()
	key, token := &preparedCredential{cred: APIKey(testKey)}, &preparedCredential{cred: UserToken(testKey)}
	assert.True(t, sameCredential(key, &preparedCredential{cred: APIKey(testKey)}))
	assert.False(t, sameCredential(key, token))
}

// withoutVerify is a base that does not serve Routes.Verify.
func withoutVerify(base http.RoundTripper) tripFunc {
	return func(r *http.Request) (*http.Response, error) {
		if isVerify(r) {
			return reply(http.StatusNotFound, `{"errors":[{"code":"NOT_FOUND","message":"no such route"}]}`), nil
		}
		return base.RoundTrip(r)
	}
}

func TestConcurrentRefusalsCountAsOneUnprovenRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, base := newMint("k1"), newPlatform("k1")
		slow := CredentialSourceFunc(func(ctx context.Context) (Credential, error) {
			advance(100 * time.Millisecond)
			return src.Credential(ctx)
		})
		tr := transportOver(t, withoutVerify(base), slow)
		_, _, err := get(t.Context(), tr, "/x")
		require.NoError(t, err)
		for _, key := range []string{"k2", "k3"} { // within a minute
			letPass(10 * time.Second)
			base.accept(key)
			src.replace(APIKey(key))
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					code, _, err := get(t.Context(), tr, "/x")
					assert.Equal(t, http.StatusOK, code, "%s: %v", key, err)
				})
			}
			wg.Wait()
		}
		assert.Equal(t, 3, src.count())
	})
}

// A source that takes its time replaces a good credential by a dead one, and insists on it.
func TestConcurrentRequestsFallBackToPreviousCredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src := newMint("k1")
		slow := CredentialSourceFunc(func(ctx context.Context) (Credential, error) {
			advance(100 * time.Millisecond)
			return src.Credential(ctx)
		})
		platform := newPlatform("k1")
		tr := transportOver(t, tripFunc(func(r *http.Request) (*http.Response, error) {
			if isVerify(r) && secretOf(r.Header) != "k1" {
				return reply(http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"unknown key"}]}`), nil
			}
			return platform.RoundTrip(r)
		}), slow)
		_, _, err := get(t.Context(), tr, "/x")
		require.NoError(t, err)
		src.replace(APIKey("k2"))
		_, err = tr.creds.engine.Renew(t.Context())
		require.NoError(t, err)
		var calls sync.WaitGroup
		for range 20 {
			calls.Go(func() {
				code, _, err := get(t.Context(), tr, "/x")
				assert.Equal(t, http.StatusOK, code, "%v", err)
			})
		}
		calls.Wait()
	})
}
