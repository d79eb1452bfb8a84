package main

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// transcript keeps what is printed.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func noEnvironment(string) (string, bool) { return "", false }

func TestWorkerEndsEachHiring(t *testing.T) {
	t.Parallel()
	out := &transcript{}
	require.NoError(t, run(t.Context(), out, noEnvironment), out)
	text := out.String()
	for _, line := range []string{
		"uppercase  one    completed  ONE\n", "reverse    two    completed  owt\n", "juggling   three  failed     \n",
		"uppercase  four   completed  FOUR\n", "reverse    five   completed  evif\n",
	} {
		assert.Contains(t, text, line)
	}
	assert.Regexp(t, `result after [2-9] attempts`, text, "a response was lost")
	assert.NotContains(t, text, "cannot")
}

func TestInterruptEndsEmbeddedPlatform(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_ = run(ctx, &transcript{}, noEnvironment) // the test ends
}

// agentWithHiring returns a platform, and a client of an agent that is hired once.
func agentWithHiring(t *testing.T) (*agrentingtest.Server, *agrenting.Client, string) {
	t.Helper()
	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe"})
	hirer, err := clientOf(srv, agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hirer.Close()) })
	var answer struct{ Hiring hiring }
	_, err = hirer.Do(t.Context(), http.MethodPost, "/api/v1/agents/"+agent.ID+"/hire",
		map[string]any{"task_description": "x", "capability_requested": "uppercase", "price": "1.00"}, &answer)
	require.NoError(t, err)
	client, err := clientOf(srv, agrenting.APIKey(srv.NewKey(agent.ID).Secret))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return srv, client, answer.Hiring.ID
}

func TestWorkerReportsAnAttemptOnce(t *testing.T) {
	t.Parallel()
	srv, client, id := agentWithHiring(t)
	w := &worker{client: client, out: &transcript{}}
	var pending []hiring
	_, err := client.Do(t.Context(), http.MethodGet, "/api/v1/hirings/pending", nil, &pending)
	require.NoError(t, err)
	require.Len(t, pending, 1)
	require.Equal(t, id, pending[0].ID)
	for range 2 { // the process was restarted before it saw the response
		w.handle(t.Context(), pending[0])
	}
	text := w.out.(*transcript).String() //nolint:errcheck,forcetypeassert // see above
	assert.Equal(t, "hiring \"x\": result after 1 attempt\nhiring \"x\": result after 1 attempt\n", text)
	work, ok := srv.Work(id)
	require.True(t, ok)
	assert.Equal(t, "completed", work.Status)
}

func TestWorkerStopsIfItsKeyIsDead(t *testing.T) {
	t.Parallel()
	srv, client, id := agentWithHiring(t)
	work, ok := srv.Work(id)
	require.True(t, ok)
	for _, k := range srv.LiveKeys(work.ProviderAgentID) {
		srv.RevokeKey(k.ID)
	}
	w := &worker{client: client, out: &transcript{}, every: time.Hour}
	require.ErrorIs(t, w.run(t.Context()), agrenting.ErrUnauthorized)
}
