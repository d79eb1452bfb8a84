package agrenting

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// keyQueue yields keys in turn, and the last one for ever.
type keyQueue struct {
	mu   sync.Mutex
	keys []agrentingtest.Key
}

func (q *keyQueue) Credential(context.Context) (Credential, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.keys[0]
	if len(q.keys) > 1 {
		q.keys = q.keys[1:]
	}
	return APIKey(k.Secret), nil
}

func (q *keyQueue) set(keys ...agrentingtest.Key) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.keys = keys
}

// sharing is two clients of one agent that share their sessions.
func sharing(t *testing.T) (w *rotationWorld, sources [2]*keyQueue, clients [2]*Client) {
	t.Helper()
	w = newRotationWorld(t)
	folder := filepath.Join(t.TempDir(), "sessions")
	for i := range clients {
		store, err := FileStore(folder)
		require.NoError(t, err)
		sources[i] = &keyQueue{keys: []agrentingtest.Key{w.key}}
		clients[i] = clientOf(t, w.srv, WithCredentialSource(sources[i]), WithSession(SessionPolicy{Store: store}))
		require.NoError(t, w.call(clients[i]))
	}
	return w, sources, clients
}

func TestASessionOfTheStoreThatWasEndedTooIsNotAdopted(t *testing.T) {
	t.Parallel()
	w, _, clients := sharing(t)
	require.NoError(t, renewSession(t.Context(), clients[0]))
	require.EqualValues(t, 2, w.srv.Stats().SessionsIssued)
	// The second client still has the first session, and both are ended.
	w.srv.RevokeSessions()
	w.srv.ResetLog()
	require.NoError(t, w.call(clients[1]))
	require.NoError(t, w.call(clients[0]))
	assert.EqualValues(t, 3, w.srv.Stats().SessionsIssued)
	refused := 0
	for _, r := range w.srv.Requests() {
		if r.Status == http.StatusUnauthorized && r.Path == "/api/v1/tasks" {
			refused++
		}
	}
	assert.Equal(t, len(clients), refused, "each request was refused once, for its own session")
}

func TestAKeyThatAnotherProcessSawRefusedIsLookedForAnew(t *testing.T) {
	t.Parallel()
	w, sources, clients := sharing(t)
	next := w.srv.NewKey(w.agent.ID)
	w.srv.RevokeKey(w.key.ID)
	w.srv.RevokeSessions()
	for i, c := range clients {
		sources[i].set(w.key, next) // it is replaced while it is looked at
		require.NoError(t, w.call(c))
	}
	assert.EqualValues(t, 2, w.srv.Stats().SessionsIssued)
	assert.Equal(t, 3, w.srv.Count("POST /api/v1/auth/authenticate"), "the dead key was sent once")
}

func TestAKeyMayBeReplacedWhileItsPredecessorIs(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	second, third := w.srv.NewKey(w.agent.ID), w.srv.NewKey(w.agent.ID)
	w.srv.RevokeKey(w.key.ID)
	w.srv.RevokeKey(second.ID)
	src := &keyQueue{keys: []agrentingtest.Key{w.key, second, third}}
	require.NoError(t, w.call(clientOf(t, w.srv, WithCredentialSource(src), WithSession())))

	// But a source that never tires is not followed for ever.
	w.srv.RevokeKey(third.ID)
	dead := make([]agrentingtest.Key, 20)
	for i := range dead {
		dead[i] = w.srv.NewKey(w.agent.ID)
		w.srv.RevokeKey(dead[i].ID)
	}
	w.srv.ResetLog()
	_, err := clientOf(t, w.srv, WithCredentialSource(&keyQueue{keys: dead}), WithSession()).
		Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
	require.ErrorIs(t, err, ErrUnauthorized)
	assert.Equal(t, 4, w.srv.Count("POST /api/v1/auth/authenticate"))
}
