package sockettest_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/agrentingtest/sockettest"
)

func TestHandshakeAcceptsTheCredentialOfTheEndpoint(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		session, _ := w.srv.NewSession(w.key.Secret)
		revoked := w.srv.NewKey(w.provider.ID)
		w.srv.RevokeKey(revoked.ID)
		const ok, refused = http.StatusSwitchingProtocols, http.StatusForbidden
		for name, c := range map[string]struct {
			query                string
			agent, hirer, common int
		}{
			"key":                  {"api_key=" + w.key.Secret, ok, refused, ok},
			"token":                {"api_key=" + w.token.Secret, refused, ok, refused},
			"session":              {"session_token=" + session, refused, refused, ok},
			"version 1":            {"vsn=1.0.0&api_key=" + w.key.Secret, ok, refused, ok},
			"later version 2":      {"vsn=2.0.3&api_key=" + w.key.Secret, ok, refused, ok},
			"unknown version":      {"vsn=3.0.0&api_key=" + w.key.Secret, refused, refused, refused},
			"malformed version":    {"vsn=2&api_key=" + w.key.Secret, refused, refused, refused},
			"none":                 {"vsn=2.0.0", refused, refused, refused},
			"unknown key":          {"api_key=unknown", refused, refused, refused},
			"empty":                {"api_key=", refused, refused, refused},
			"revoked key":          {"api_key=" + revoked.Secret, refused, refused, refused},
			"session as a key":     {"api_key=" + session, refused, refused, refused},
			"key as a session":     {"session_token=" + w.key.Secret, refused, refused, refused},
			"token as a session":   {"session_token=" + w.token.Secret, refused, refused, refused},
			"twice":                {"api_key=" + w.key.Secret + "&api_key=" + w.key.Secret, refused, refused, refused},
			"both":                 {"api_key=" + w.key.Secret + "&session_token=" + session, refused, refused, refused},
			"another name":         {"API_KEY=" + w.key.Secret, refused, refused, refused},
			"an unknown parameter": {"api_key=" + w.key.Secret + "&client=1", ok, refused, ok},
		} {
			for path, want := range map[string]int{agentPath: c.agent, hirerPath: c.hirer, commonPath: c.common} {
				p, status := w.dial(path, c.query)
				assert.Equal(t, want, status, "%s at %s", name, path)
				if p != nil {
					require.NoError(t, p.conn.CloseNow())
				}
			}
		}
	})
}

func TestHandshakeRefusesACredentialInAHeader(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		for _, query := range []string{"", "api_key=" + w.key.Secret} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.srv.URL+agentPath+"?"+query, http.NoBody)
			require.NoError(t, err)
			req.Header.Set("X-API-Key", w.key.Secret)
			resp, err := (&http.Client{Transport: w.srv.Transport()}).Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, http.StatusForbidden, resp.StatusCode)
			assert.Zero(t, resp.ContentLength, "as from Phoenix")
		}
	})
}

func TestRefusedHandshakeUsesConfiguredStatus(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		_, status := w.dial(agentPath, "api_key=unknown")
		assert.Equal(t, http.StatusUnauthorized, status)
		_, status = w.dial(agentPath, "vsn=9.0.0&api_key="+w.key.Secret)
		assert.Equal(t, http.StatusUnauthorized, status)
	}, sockettest.WithRefusal(http.StatusUnauthorized))
	assert.Panics(t, func() { sockettest.WithRefusal(http.StatusOK) })
}

func TestLogsShowNoCredentialOfASocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
		w := newWorld(t, []agrentingtest.Option{agrentingtest.WithLogger(logger)})
		w.srv.Fault("GET "+hirerPath, agrentingtest.Status(http.StatusServiceUnavailable, ""))
		session, _ := w.srv.NewSession(w.key.Secret)
		_ = w.connect(agentPath, w.key.Secret)
		_, _ = w.dial(commonPath, "vsn=2.0.0&session_token="+session)
		_, _ = w.dial(agentPath, "Api_Key="+w.key.Secret)
		_, _ = w.dial(hirerPath, "api_key="+w.token.Secret) // a fault answers
		w.srv.Close()
		requests := w.srv.Requests()
		require.Len(t, requests, 4)
		for _, secret := range []string{w.key.Secret, session, w.token.Secret} {
			assert.NotContains(t, lines.String(), secret)
			assert.NotContains(t, fmt.Sprint(requests), secret)
		}
		assert.Equal(t, url.Values{"vsn": {"2.0.0"}, "api_key": {"[FILTERED]"}}, requests[0].Query)
		assert.Equal(t, w.key.ID, requests[0].CredentialID)
		assert.Equal(t, "agent:"+w.provider.ID, requests[0].Principal)
		assert.Equal(t, http.StatusSwitchingProtocols, requests[0].Status)
		assert.Equal(t, agrentingtest.KindSession, requests[1].CredentialKind)
		assert.Equal(t, http.StatusForbidden, requests[2].Status)
		assert.Equal(t, 4, strings.Count(lines.String(), "msg=request"))
	})
}

func TestHandshakesCountTowardTheLimitOfChannels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, []agrentingtest.Option{agrentingtest.WithRateLimits(agrentingtest.RateLimits{Channel: 2})})
		defer w.srv.Close()
		status := func(secret string) int {
			p, status := w.dial(agentPath, "api_key="+secret)
			if p != nil {
				require.NoError(t, p.conn.CloseNow())
			}
			return status
		}
		assert.Equal(t, 101, status(w.key.Secret))
		assert.Equal(t, 101, status(w.key.Secret))
		assert.Equal(t, http.StatusTooManyRequests, status(w.key.Secret))
		assert.Equal(t, 101, status(w.clientKey.Secret), "each agent has its own allowance")
		sleep(time.Minute)
		assert.Equal(t, 101, status(w.key.Secret))
	})
}

func TestSilentSocketIsClosedAfterAMinute(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		silent, beating, pinging := w.connect(agentPath, w.key.Secret), w.connect(agentPath, w.key.Secret), w.connect(agentPath, w.key.Secret)
		begin := time.Now()
		done := make(chan websocket.StatusCode, 1)
		at := make(chan time.Duration, 1)
		go func() {
			done <- silent.closed()
			at <- time.Since(begin)
		}()
		pinging.conn.CloseRead(t.Context()) // reads the pongs
		for range 20 {
			sleep(30 * time.Second)
			beating.quiet()
			require.NoError(t, pinging.conn.Ping(t.Context()))
		}
		assert.Equal(t, websocket.StatusProtocolError, <-done)
		assert.Equal(t, time.Minute, <-at)
		assert.Len(t, w.sockets.Connections(), 2)
	})
}

func TestServerCloseEndsSockets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		a, b := w.connect(agentPath, w.key.Secret), w.connect(hirerPath, w.token.Secret)
		codes := make(chan websocket.StatusCode, 2)
		go func() { codes <- a.closed() }()
		go func() { codes <- b.closed() }()
		begin := time.Now()
		w.srv.Close()
		assert.Equal(t, websocket.StatusGoingAway, <-codes)
		assert.Equal(t, websocket.StatusGoingAway, <-codes)
		assert.Zero(t, time.Since(begin))
		assert.Empty(t, w.sockets.Connections())
		w.srv.Close()
	})
}

// A client that does not read cannot confirm the end.
func TestServerCloseDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		_ = w.connect(agentPath, w.key.Secret)
		synctest.Wait()
		begin := time.Now()
		w.srv.Close()
		assert.LessOrEqual(t, time.Since(begin), time.Second)
		assert.Empty(t, w.sockets.Connections())
	})
}

func TestRevocationClosesSockets(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		session, _ := w.srv.NewSession(w.key.Secret)
		spare := w.srv.NewKey(w.provider.ID)
		byKey, bySpare, byToken := w.connect(agentPath, w.key.Secret), w.connect(agentPath, spare.Secret), w.connect(hirerPath, w.token.Secret)
		bySession, _ := w.dial(commonPath, "vsn=2.0.0&session_token="+session)
		w.srv.RevokeKey(w.key.ID)
		assert.Equal(t, websocket.StatusGoingAway, byKey.closed())
		bySpare.quiet()
		bySession.quiet()
		w.srv.RevokeSession(session)
		assert.Equal(t, websocket.StatusGoingAway, bySession.closed())
		w.srv.RevokeToken(w.token.ID)
		assert.Equal(t, websocket.StatusGoingAway, byToken.closed())
		bySpare.quiet()
		synctest.Wait()
		assert.Len(t, w.sockets.Connections(), 1)
	})
}

func TestRotationClosesSocketsOfOldKey(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		old := w.connect(agentPath, w.key.Secret)
		secret, _ := w.post("X-API-Key", w.key.Secret, "/api/v1/auth/rotate-key", map[string]any{})["api_key"].(string)
		assert.Equal(t, websocket.StatusGoingAway, old.closed())
		w.connect(agentPath, secret).quiet()
	})
}

func TestExpiryClosesNoSocket(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		w.srv.SetSessionTTL(10 * time.Second)
		session, _ := w.srv.NewSession(w.key.Secret)
		p, _ := w.dial(commonPath, "vsn=2.0.0&session_token="+session)
		sleep(30 * time.Second)
		p.quiet()
		_, status := w.dial(commonPath, "vsn=2.0.0&session_token="+session)
		assert.Equal(t, http.StatusForbidden, status)
	})
}

func TestSurvivingSocketsOutliveTheirCredential(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		p := w.connect(agentPath, w.key.Secret)
		w.srv.RevokeKey(w.key.ID)
		sleep(time.Second)
		p.quiet()
	}, sockettest.WithSurvivingSockets())
}

func TestDisconnectClosesTheSocketsOfOneAgent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		a, b, c := w.connect(agentPath, w.key.Secret), w.connect(commonPath, w.key.Secret), w.connect(agentPath, w.clientKey.Secret)
		assert.Equal(t, 2, w.sockets.Disconnect(w.provider.ID))
		assert.Equal(t, websocket.StatusGoingAway, a.closed())
		assert.Equal(t, websocket.StatusGoingAway, b.closed())
		c.quiet()
		assert.Zero(t, w.sockets.Disconnect(w.provider.ID))
		assert.Zero(t, w.sockets.Disconnect(""))
	})
}

func TestSlowReaderIsCutOff(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		slow, quick := w.connect(agentPath, w.key.Secret), w.connect(agentPath, w.key.Secret)
		topic := "agent:" + w.provider.ID
		require.Nil(t, slow.join(topic))
		require.Nil(t, quick.join(topic))
		for i := range 100 {
			w.sockets.Push(topic, "custom", map[string]any{"n": i})
			assert.InDelta(t, i, quick.expect(topic, "custom")["n"], 0)
		}
		synctest.Wait()
		assert.Len(t, w.sockets.Connections(), 1)
		assert.NotEqual(t, websocket.StatusNormalClosure, slow.closed())
		quick.quiet()
	}, sockettest.WithQueue(8))
}

func TestConnectionsListTopics(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		p := w.connect(commonPath, w.key.Secret)
		require.Nil(t, p.join("analytics:global"))
		require.Nil(t, p.join("agents:discovery"))
		_ = w.connect(hirerPath, w.token.Secret)
		all := w.sockets.Connections()
		require.Len(t, all, 2)
		assert.Equal(t, commonPath, all[0].Path)
		assert.Equal(t, w.key.ID, all[0].Principal.KeyID)
		assert.Equal(t, []string{"agents:discovery", "analytics:global"}, all[0].Topics)
		assert.Equal(t, w.user.ID, all[1].Principal.UserID)
		assert.Empty(t, all[1].Topics)
	})
}

func TestServersOfOthersHaveNoSockets(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+agentPath+"?api_key=x", http.NoBody)
	require.NoError(t, err)
	resp, err := (&http.Client{Transport: srv.Transport()}).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusNotFound, resp.StatusCode)
}

func TestClosedSocketGetsNoPushes(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		p := w.connect(agentPath, w.key.Secret)
		topic := "agent:" + w.provider.ID
		require.Nil(t, p.join(topic))
		require.NoError(t, p.conn.Close(websocket.StatusNormalClosure, ""))
		synctest.Wait()
		assert.Zero(t, w.sockets.Push(topic, "custom", struct{}{}))
		assert.Empty(t, w.sockets.Connections())
	})
}

// The client has sent its message before it knows that the socket is closed.
func TestMessageBehindARevocationHasNoEffect(t *testing.T) {
	t.Parallel()
	inBubble(t, func(w *world) {
		t := w.t
		id := w.task()
		p := w.connect(commonPath, w.key.Secret)
		require.Nil(t, p.join("task:"+id))
		w.srv.RevokeKey(w.key.ID)
		synctest.Wait()
		p.send("task:"+id, "complete", map[string]any{"result": "roses"})
		p.write(`["9","9","agents:discovery","phx_join",{}]`)
		synctest.Wait()
		work, _ := w.srv.Work(id)
		assert.Equal(t, "pending", work.Status)
		assert.Equal(t, []string{"task:" + id}, w.sockets.Connections()[0].Topics)
		assert.Equal(t, websocket.StatusGoingAway, p.closed())
	})
}
