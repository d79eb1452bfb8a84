package sockettest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// sdk returns a client of the SDK for the world.
func (w *world) sdk(t *testing.T, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.srv.URL), agrenting.WithTransport(w.srv.Transport()),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// open dials a socket as a user of the SDK does.
func (w *world) open(t *testing.T, c *agrenting.Client, path string) *peer {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), w.srv.URL+path+"?vsn=2.0.0", //nolint:bodyclose // the body of a handshake is the connection
		&websocket.DialOptions{HTTPClient: c.SocketHTTPClient()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	return &peer{t: t, conn: conn}
}

// handshakes returns the requests for sockets, and checks that every credential is
// where it belongs.
func (w *world) handshakes(t *testing.T) (sockets []agrentingtest.Request) {
	t.Helper()
	for _, r := range w.srv.Requests() {
		inHeader := len(r.Header["X-Api-Key"]) + len(r.Header["Api-Key"]) + len(r.Header["Authorization"])
		inQuery := len(r.Query["api_key"]) + len(r.Query["session_token"])
		switch r.Path {
		case agentPath, hirerPath, commonPath:
			assert.Zero(t, inHeader, r.Path)
			assert.Equal(t, 1, inQuery, r.Path)
			sockets = append(sockets, r)
		default:
			assert.Zero(t, inQuery, r.Path)
		}
	}
	return sockets
}

func TestClientConnectsWithEachKindOfCredential(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		agent := w.sdk(t, agrenting.WithCredential(agrenting.APIKey(w.key.Secret)))
		w.open(t, agent, agentPath).quiet()
		w.open(t, agent, commonPath).quiet()
		w.open(t, w.sdk(t, agrenting.WithCredential(agrenting.UserToken(w.token.Secret))), hirerPath).quiet()
		session := w.sdk(t, agrenting.WithCredential(agrenting.APIKey(w.key.Secret)), agrenting.WithSession())
		w.open(t, session, commonPath).quiet()
		_, err := session.Do(t.Context(), http.MethodGet, "/api/v1/hirings/pending", nil, nil)
		require.NoError(t, err)
		_, err = agent.Do(t.Context(), http.MethodGet, "/api/v1/hirings/pending", nil, nil)
		require.NoError(t, err)
		all := w.handshakes(t)
		require.Len(t, all, 4)
		kinds := []agrentingtest.CredentialKind{all[0].CredentialKind, all[1].CredentialKind, all[2].CredentialKind, all[3].CredentialKind}
		assert.Equal(t, []agrentingtest.CredentialKind{
			agrentingtest.KindAPIKey, agrentingtest.KindAPIKey, agrentingtest.KindUserToken, agrentingtest.KindSession,
		}, kinds)
	})
}

func TestClientRenewsSessionExpiredBetweenConnects(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		w.srv.SetSessionTTL(10 * time.Minute)
		c := w.sdk(t, agrenting.WithCredential(agrenting.APIKey(w.key.Secret)), agrenting.WithSession())
		seen := map[string]bool{}
		for range 5 {
			w.open(t, c, commonPath).quiet()
			sleep(11 * time.Minute)
		}
		for _, r := range w.handshakes(t) {
			assert.Equal(t, http.StatusSwitchingProtocols, r.Status)
			seen[r.CredentialID] = true
		}
		assert.Len(t, seen, 5)
		assert.Equal(t, 5, w.srv.Count("GET "+commonPath))
	})
}

// The platform ends the sessions early, and the socket refuses them with 403.
func TestClientRenewsSessionEndedBetweenConnects(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		c := w.sdk(t, agrenting.WithCredential(agrenting.APIKey(w.key.Secret)), agrenting.WithSession())
		for range 5 {
			p := w.open(t, c, commonPath)
			p.quiet()
			sleep(10 * time.Second) // young sessions are another matter
			w.srv.RevokeSessions()
			assert.Equal(t, websocket.StatusGoingAway, p.closed())
		}
		w.open(t, c, commonPath).quiet()
		w.handshakes(t)
	})
}

func TestClientConnectsWithTheRotatedKey(t *testing.T) {
	t.Parallel()
	for name, strategy := range map[string]agrenting.Strategy{"in place": agrenting.InPlace, "overlap": agrenting.Overlap} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(w *world) {
				t := w.t
				c := w.sdk(t, agrenting.WithCredential(agrenting.APIKey(w.key.Secret)), agrenting.WithStore(agrenting.MemoryStore()),
					agrenting.WithAgentID(w.provider.ID), agrenting.WithRotation(agrenting.RotationPolicy{Strategy: strategy}))
				p := w.open(t, c, agentPath)
				for range 3 {
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
					assert.Equal(t, websocket.StatusGoingAway, p.closed(), "the old key is revoked")
					p = w.open(t, c, agentPath)
					p.quiet()
				}
				all := w.handshakes(t)
				require.Len(t, all, 4)
				live := w.srv.LiveKeys(w.provider.ID)
				require.Len(t, live, 1)
				assert.Equal(t, live[0].ID, all[3].CredentialID)
				for _, r := range all {
					assert.Equal(t, http.StatusSwitchingProtocols, r.Status)
				}
				require.NoError(t, c.Close())
				synctest.Wait()
			})
		})
	}
}

func TestClientConnectsWithKeyOfOtherRotation(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		store := agrenting.MemoryStore()
		opts := []agrenting.Option{
			agrenting.WithCredential(agrenting.APIKey(w.key.Secret)), agrenting.WithStore(store), agrenting.WithAgentID(w.provider.ID),
		}
		rotating, connecting := w.sdk(t, opts...), w.sdk(t, opts...)
		p := w.open(t, connecting, agentPath)
		_, err := rotating.Rotate(t.Context())
		require.NoError(t, err)
		assert.Equal(t, websocket.StatusGoingAway, p.closed())
		sleep(time.Minute) // a follower loads the store every 30 s
		w.open(t, connecting, agentPath).quiet()
		live := w.srv.LiveKeys(w.provider.ID)
		require.Len(t, live, 1)
		all := w.handshakes(t)
		assert.Equal(t, live[0].ID, all[len(all)-1].CredentialID)
	})
}

func TestClientRetriesFailedHandshake(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		w.srv.Fault("GET "+agentPath, agrentingtest.Status(http.StatusServiceUnavailable, ""), agrentingtest.DropBefore())
		c := w.sdk(t, agrenting.WithCredential(agrenting.APIKey(w.key.Secret)))
		w.open(t, c, agentPath).quiet()
		assert.Len(t, w.handshakes(t), 3)
	})
}

// Faults that revoke what is presented find a credential in the query, too.
func TestFaultRevokesTheCredentialOfAHandshake(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		w.srv.Fault("GET *", agrentingtest.RevokeNow().Times(2))
		session, _ := w.srv.NewSession(w.clientKey.Secret)
		_, status := w.dial(agentPath, "api_key="+w.key.Secret)
		assert.Equal(t, http.StatusForbidden, status)
		assert.False(t, w.srv.KeyAlive(w.key.Secret))
		_, status = w.dial(commonPath, "session_token="+session)
		assert.Equal(t, http.StatusForbidden, status)
		_, status = w.dial(commonPath, "api_key="+w.clientKey.Secret)
		assert.Equal(t, http.StatusSwitchingProtocols, status)
	})
}
