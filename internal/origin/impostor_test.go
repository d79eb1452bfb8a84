package origin_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// A network's portal returns 200 to everything.
func TestWebPageIsNotAPlatformResponse(t *testing.T) {
	t.Parallel()
	const agent = "6f1f1b0e-9d0f-4d39-8a51-94f9e0d4c7a1"
	page := func(t *testing.T) *agrenting.Client {
		t.Helper()
		return sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "<html>Sign in</html>", "Content-Type", "text/html"))
	}
	for name, call := range map[string]func(context.Context, *agrenting.Client) error{
		"Do": func(ctx context.Context, c *agrenting.Client) error {
			_, err := c.Do(ctx, http.MethodPost, "/x", nil, nil)
			return err
		},
		"Keys.Revoke":   func(ctx context.Context, c *agrenting.Client) error { return c.Keys.Revoke(ctx, agent, "k1") },
		"Tokens.Revoke": func(ctx context.Context, c *agrenting.Client) error { return c.Tokens.Revoke(ctx, "t1") },
		"Logout":        func(ctx context.Context, c *agrenting.Client) error { return c.Sessions.Logout(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.ErrorIs(t, call(t.Context(), page(t)), agrenting.ErrMalformedResponse)
			plain := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "gone fishing", "Content-Type", "text/plain"))
			if name == "Do" {
				require.NoError(t, call(t.Context(), plain), "what is discarded may be anything else")
			} else {
				require.ErrorIs(t, call(t.Context(), plain), agrenting.ErrMalformedResponse)
			}
			for _, body := range []string{"", "{}", `{"data":{"revoked":true}}`, "null", `"ok"`} {
				require.NoError(t, call(t.Context(), sdktest.Keyed(t, sdktest.Answering(http.StatusOK, body))), body)
			}
		})
	}
	_, err := sdktest.Collect[agrenting.Agent](t, sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "")), "/api/v1/agents")
	require.ErrorIs(t, err, agrenting.ErrMalformedResponse, "a list that is empty is []")
	none, err := sdktest.Collect[agrenting.Agent](t, sdktest.Keyed(t, sdktest.Answering(http.StatusNoContent, "")), "/api/v1/agents")
	require.NoError(t, err)
	assert.Empty(t, none)
}

func TestWebPageDoesNotVerifyNewKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		portal := false
		base := sdktest.Between(w.Server.Transport(), func(r *http.Request) *http.Response {
			if portal && strings.HasSuffix(r.URL.Path, "/pending") {
				return sdktest.Reply(http.StatusOK, "<html>Sign in</html>", "Content-Type", "text/html")
			}
			return nil
		})
		store := agrenting.MemoryStore()
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, Every: -1}, agrenting.WithTransport(base))
		require.NoError(t, w.Call(c))
		portal = true
		_, err := c.Rotate(t.Context())
		require.ErrorIs(t, err, agrenting.ErrMalformedResponse)
		assert.True(t, w.Server.KeyAlive(w.Key.Secret), "the old key lives while the new one is not known")
		portal = false
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

func TestTruncatedRotationResponseIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Strategy: s, Every: -1})
				require.NoError(t, w.Call(c))
				w.Server.Fault(sdktest.RouteRotate, agrentingtest.MalformedJSON())
				w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.MalformedJSON())
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				w.OneLiveKey(store)

				w.Server.ClearFaults()
				w.Server.Fault(sdktest.RouteRotate, agrentingtest.MalformedJSON().Always())
				w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.MalformedJSON().Always())
				_, err = c.Rotate(t.Context())
				e, ok := errors.AsType[*agrenting.RotationError](err)
				require.True(t, ok, "%v", err)
				assert.Contains(t, e.Advice, "The next attempt asks for it again")
				w.Server.ClearFaults()
				_, err = c.Rotate(t.Context())
				require.NoError(t, err)
				w.OneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestCredentialIsNotAnAgentID(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"ap_0123456789abcdef0123", "sk_live_0123456789abcdef", sdktest.TestKey} {
		_, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)), agrenting.WithAgentID(id))
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID, id)
		sdktest.AssertNoSecret(t, err.Error(), id)
		_, err = agrenting.New(agrenting.WithLookupEnv(func(name string) (string, bool) {
			v, ok := map[string]string{"AGRENTING_API_KEY": sdktest.TestKey, "AGRENTING_AGENT_ID": id}[name]
			return v, ok
		}))
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID, id)
		sdktest.AssertNoSecret(t, err.Error(), id)
	}
}

func TestUnsafeSessionFolderIsRefusedOrReported(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean little there")
	}
	folder := filepath.Join(t.TempDir(), "sessions")
	store, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, os.Chmod(folder, 0o777))

	w := sdktest.NewSessionWorld(t)
	c := w.Client(agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
	require.NoError(t, w.Call(c))
	require.ErrorContains(t, c.Status().StoreError, "chmod 700 ")
	require.NoError(t, os.Chmod(folder, 0o700))
	w.Server.RevokeSessions()
	require.NoError(t, w.Call(c))
	require.NoError(t, c.Status().StoreError)
}

func TestSourceErrorOmitsCredentialInUse(t *testing.T) {
	t.Parallel()
	errVault := errors.New("vault")
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.Join(errVault, errors.New("lease of "+sdktest.TestKey+" has ended")) },
		"a panic":  func() error { panic("lease of " + sdktest.TestKey + " has ended") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failing := false
			src := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
				if failing {
					return agrenting.Credential{}, fail()
				}
				return agrenting.APIKey(sdktest.TestKey), nil
			})
			hears := sdktest.NewCanary(sdktest.TestKey)
			c := sdktest.ClientOver(t, sdktest.Answering(http.StatusUnauthorized, "{}"), src, hears.Options()...)
			_, err := c.Credential(t.Context())
			require.NoError(t, err)
			failing = true
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.Error(t, err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				hears.Hear(e)
			}
			hears.Hear(c.Status(), c.Status().LastError)
			assert.Empty(t, hears.Leaks())
			if name == "an error" {
				require.ErrorIs(t, err, errVault)
			}
			require.NoError(t, c.Close())
			assert.Empty(t, hears.Leaks())
		})
	}
}
