package interop_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// connect-go's GetBody rewinds the one body that it has and returns it again.
// That works with net/http, which calls GetBody when the attempt before is over;
// net/http's HTTP/2 reads a body until the response of its attempt is closed.
func TestReplayReadsBodyAfterRefusedAttempt(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	keys := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	key, next := srv.NewKey(keys.ID).Secret, srv.NewKey(keys.ID).Secret
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("X-Api-Key") == key {
			resp, err := answering(func(*http.Request) (int, string) { return http.StatusUnauthorized, "" }).RoundTrip(req)
			resp.Body = &readsOn{body: req.Body}
			return resp, err
		}
		sent, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		return answering(func(*http.Request) (int, string) { return http.StatusOK, string(sent) }).RoundTrip(req)
	})
	transport, err := agrenting.NewTransport(&inTurn{secrets: []string{key, next}},
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL("https://platform.example"), agrenting.WithTransport(base))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, transport.Close()) })

	body := strings.NewReader("the message")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://platform.example/", io.NopCloser(body))
	require.NoError(t, err)
	req.GetBody = func() (io.ReadCloser, error) {
		_, err := body.Seek(0, io.SeekStart)
		return io.NopCloser(body), err
	}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, "the message", string(got))
}

// readsOn is the body of a response that came before the request was read: the
// attempt continues to read until it is closed.
type readsOn struct {
	body io.Reader
	once sync.Once
}

// Read implements io.Reader.
func (*readsOn) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (r *readsOn) Close() error {
	var err error
	r.once.Do(func() { _, err = io.Copy(io.Discard, r.body) })
	return err
}

// inTurn gives one key after the other, each time it is asked.
type inTurn struct {
	mu      sync.Mutex
	secrets []string
}

// Credential implements agrenting.CredentialSource.
func (s *inTurn) Credential(context.Context) (agrenting.Credential, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret := s.secrets[0]
	if len(s.secrets) > 1 {
		s.secrets = s.secrets[1:]
	}
	return agrenting.APIKey(secret), nil
}
