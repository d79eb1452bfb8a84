package grpcagrenting

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// RecvMsg returns the same error again and again.
func TestCall_refusal_isReportedOnce(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	t.Cleanup(srv.Close)
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"}).ID)
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.APIKey(key.Secret)), agrenting.WithSession())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	c := new(call)
	_, err = c.authorize(t.Context(), client, srv.URL)
	require.NoError(t, err)
	refusal := status.Error(codes.Unauthenticated, "refused")
	assert.True(t, c.refused(t.Context(), refusal))
	assert.False(t, c.refused(t.Context(), refusal))
	_, err = c.authorize(t.Context(), client, srv.URL)
	require.NoError(t, err)
	assert.True(t, c.refused(t.Context(), refusal))
}
