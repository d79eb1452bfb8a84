package session_test

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// keyQueue yields keys in turn, and the last one for ever.
type keyQueue struct {
	mu   sync.Mutex
	keys []agrentingtest.Key
}

func (q *keyQueue) Credential(context.Context) (agrenting.Credential, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.keys[0]
	if len(q.keys) > 1 {
		q.keys = q.keys[1:]
	}
	return agrenting.APIKey(k.Secret), nil
}

func (q *keyQueue) set(keys ...agrentingtest.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.keys = keys
}

// sharing is two clients of one agent that share their sessions.
func sharing(t *testing.T) (w *sdktest.RotationWorld, sources [2]*keyQueue, clients [2]*agrenting.Client) {
	t.Helper()
	w = sdktest.NewRotationWorld(t)
	folder := filepath.Join(t.TempDir(), "sessions")
	for i := range clients {
		store, err := agrenting.FileStore(folder)
		require.NoError(t, err)
		sources[i] = &keyQueue{keys: []agrentingtest.Key{w.Key}}
		clients[i] = sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(sources[i]), agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
		require.NoError(t, w.Call(clients[i]))
	}
	return w, sources, clients
}

func TestEndedSessionOfStoreIsNotAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, _, clients := sharing(t)
		sdktest.Advance(6 * time.Second) // the session is not young any more
		require.NoError(t, sdktest.RenewSession(t.Context(), w.Server, clients[0]))
		require.EqualValues(t, 2, w.Server.Stats().SessionsIssued)
		// The second client still has the first session, and both are ended.
		sdktest.Advance(6 * time.Second)
		w.Server.RevokeSessions()
		w.Server.ResetLog()
		require.NoError(t, w.Call(clients[1]))
		require.NoError(t, w.Call(clients[0]))
		assert.EqualValues(t, 3, w.Server.Stats().SessionsIssued)
		refused := 0
		for _, r := range w.Server.Requests() {
			if r.Status == http.StatusUnauthorized && r.Path == "/api/v1/tasks" {
				refused++
			}
		}
		assert.Equal(t, len(clients), refused, "each request was refused once, for its own session")
	})
}

func TestKeyRefusedForOtherProcessIsReloaded(t *testing.T) {
	t.Parallel()
	w, sources, clients := sharing(t)
	next := w.Server.NewKey(w.Agent.ID)
	w.Server.RevokeKey(w.Key.ID)
	w.Server.RevokeSessions()
	for i, c := range clients {
		sources[i].set(w.Key, next) // it is replaced while it is looked at
		require.NoError(t, w.Call(c))
	}
	assert.EqualValues(t, 2, w.Server.Stats().SessionsIssued)
	assert.Equal(t, 3, w.Server.Count("POST /api/v1/auth/authenticate"), "the dead key was sent once")
}

func TestKeyReplacedDuringReplacement(t *testing.T) {
	t.Parallel()
	w := sdktest.NewRotationWorld(t)
	second, third := w.Server.NewKey(w.Agent.ID), w.Server.NewKey(w.Agent.ID)
	w.Server.RevokeKey(w.Key.ID)
	w.Server.RevokeKey(second.ID)
	src := &keyQueue{keys: []agrentingtest.Key{w.Key, second, third}}
	require.NoError(t, w.Call(sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(src), agrenting.WithSession())))

	// But a source that never tires is not followed for ever.
	w.Server.RevokeKey(third.ID)
	dead := make([]agrentingtest.Key, 20)
	for i := range dead {
		dead[i] = w.Server.NewKey(w.Agent.ID)
		w.Server.RevokeKey(dead[i].ID)
	}
	w.Server.ResetLog()
	_, err := sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(&keyQueue{keys: dead}), agrenting.WithSession()).
		Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
	require.ErrorIs(t, err, agrenting.ErrUnauthorized)
	assert.Equal(t, 4, w.Server.Count("POST /api/v1/auth/authenticate"))
}
