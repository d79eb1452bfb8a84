package agrenting

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

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// A network's portal answers 200 to everything.
func TestAWebPageIsNoAnswerOfThePlatform(t *testing.T) {
	t.Parallel()
	const agent = "6f1f1b0e-9d0f-4d39-8a51-94f9e0d4c7a1"
	page := func(t *testing.T) *Client {
		t.Helper()
		return keyed(t, answering(http.StatusOK, "<html>Sign in</html>", "Content-Type", "text/html"))
	}
	for name, call := range map[string]func(context.Context, *Client) error{
		"Do": func(ctx context.Context, c *Client) error {
			_, err := c.Do(ctx, http.MethodPost, "/x", nil, nil)
			return err
		},
		"Keys.Revoke":   func(ctx context.Context, c *Client) error { return c.Keys.Revoke(ctx, agent, "k1") },
		"Tokens.Revoke": func(ctx context.Context, c *Client) error { return c.Tokens.Revoke(ctx, "t1") },
		"Logout":        func(ctx context.Context, c *Client) error { return c.Sessions.Logout(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.ErrorIs(t, call(t.Context(), page(t)), ErrMalformedResponse)
			plain := keyed(t, answering(http.StatusOK, "gone fishing", "Content-Type", "text/plain"))
			if name == "Do" {
				require.NoError(t, call(t.Context(), plain), "what is discarded may be anything else")
			} else {
				require.ErrorIs(t, call(t.Context(), plain), ErrMalformedResponse)
			}
			for _, body := range []string{"", "{}", `{"data":{"revoked":true}}`, "null", `"ok"`} {
				require.NoError(t, call(t.Context(), keyed(t, answering(http.StatusOK, body))), body)
			}
		})
	}
	_, err := collect[Agent](t, keyed(t, answering(http.StatusOK, "")), "/api/v1/agents")
	require.ErrorIs(t, err, ErrMalformedResponse, "a list that is empty is []")
	none, err := collect[Agent](t, keyed(t, answering(http.StatusNoContent, "")), "/api/v1/agents")
	require.NoError(t, err)
	assert.Empty(t, none)
}

func TestAKeyIsNotPromotedOnTheWordOfAWebPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		portal := false
		base := between(w.srv.Transport(), func(r *http.Request) *http.Response {
			if portal && strings.HasSuffix(r.URL.Path, "/pending") {
				return reply(http.StatusOK, "<html>Sign in</html>", "Content-Type", "text/html")
			}
			return nil
		})
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: Overlap, Every: -1}, WithTransport(base))
		require.NoError(t, w.call(c))
		portal = true
		_, err := c.Rotate(t.Context())
		require.ErrorIs(t, err, ErrMalformedResponse)
		assert.True(t, w.srv.KeyAlive(w.key.Secret), "the old key lives while nobody knows about the new one")
		portal = false
		_, err = c.Rotate(t.Context())
		require.NoError(t, err)
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

func TestAnAnswerThatWasCutOffIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t)
				store := MemoryStore()
				c := w.client(store, RotationPolicy{Strategy: s, Every: -1})
				require.NoError(t, w.call(c))
				w.srv.Fault(routeRotate, agrentingtest.MalformedJSON())
				w.srv.Fault(routeCreateKey, agrentingtest.MalformedJSON())
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				w.oneLiveKey(store)

				w.srv.ClearFaults()
				w.srv.Fault(routeRotate, agrentingtest.MalformedJSON().Always())
				w.srv.Fault(routeCreateKey, agrentingtest.MalformedJSON().Always())
				_, err = c.Rotate(t.Context())
				e, ok := errors.AsType[*RotationError](err)
				require.True(t, ok, "%v", err)
				assert.Contains(t, e.Advice, "the next attempt asks for it again")
				w.srv.ClearFaults()
				_, err = c.Rotate(t.Context())
				require.NoError(t, err)
				w.oneLiveKey(store)
				require.NoError(t, c.Close())
			})
		})
	}
}

func TestACredentialIsNoAgent(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"ap_0123456789abcdef0123", "sk_live_0123456789abcdef", testKey} {
		_, err := New(WithoutEnvironment(), WithCredential(APIKey(testKey)), WithAgentID(id))
		require.ErrorIs(t, err, ErrInvalidAgentID, id)
		assertNoSecret(t, err.Error(), id)
		_, err = New(WithLookupEnv(func(name string) (string, bool) {
			v, ok := map[string]string{"AGRENTING_API_KEY": testKey, "AGRENTING_AGENT_ID": id}[name]
			return v, ok
		}))
		require.ErrorIs(t, err, ErrInvalidAgentID, id)
		assertNoSecret(t, err.Error(), id)
	}
}

func TestAnUnsafeFolderForSessionsIsRefusedOrSeen(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean little there")
	}
	folder := filepath.Join(t.TempDir(), "sessions")
	store, err := FileStore(folder)
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(folder, 0o700))
	require.NoError(t, os.Chmod(folder, 0o777))

	w := newSessionWorld(t)
	c := w.client(WithSession(SessionPolicy{Store: store}))
	require.NoError(t, w.call(c))
	require.ErrorContains(t, c.Status().StoreError, "chmod 700 ")
	require.NoError(t, os.Chmod(folder, 0o700))
	w.srv.RevokeSessions()
	require.NoError(t, w.call(c))
	require.NoError(t, c.Status().StoreError)
}

func TestWhatASourceSaysIsWithoutTheCredentialInUse(t *testing.T) {
	t.Parallel()
	errVault := errors.New("vault")
	for name, fail := range map[string]func() error{
		"an error": func() error { return errors.Join(errVault, errors.New("lease of "+testKey+" has ended")) },
		"a panic":  func() error { panic("lease of " + testKey + " has ended") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failing := false
			src := CredentialSourceFunc(func(context.Context) (Credential, error) {
				if failing {
					return Credential{}, fail()
				}
				return APIKey(testKey), nil
			})
			hears := newCanary(testKey)
			c := clientOver(t, answering(http.StatusUnauthorized, "{}"), src, hears.options()...)
			_, err := c.Credential(t.Context())
			require.NoError(t, err)
			failing = true
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.Error(t, err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				hears.hear(e)
			}
			hears.hear(c.Status(), c.Status().LastError)
			assert.Empty(t, hears.leaks())
			if name == "an error" {
				require.ErrorIs(t, err, errVault)
			}
			require.NoError(t, c.Close())
			assert.Empty(t, hears.leaks())
		})
	}
}
