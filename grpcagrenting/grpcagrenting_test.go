package grpcagrenting_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/grpcagrenting"
)

// world is a gRPC server over TLS that trusts the platform's credentials.
type world struct {
	t        *testing.T
	platform *agrentingtest.Server
	agent    *agrentingtest.Agent
	key      agrentingtest.Key
	addr     string
	tls      credentials.TransportCredentials

	mu   sync.Mutex
	seen []metadata.MD
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, platform: agrentingtest.NewServer(agrentingtest.WithoutRateLimits())}
	t.Cleanup(w.platform.Close)
	w.agent = w.platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	w.key = w.platform.NewKey(w.agent.ID)
	certificates := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(certificates.Close)
	roots := x509.NewCertPool()
	roots.AddCert(certificates.Certificate())
	w.tls = credentials.NewClientTLSFromCert(roots, "")
	w.addr = w.serve(grpc.Creds(credentials.NewServerTLSFromCert(&certificates.TLS.Certificates[0])))
	return w
}

// serve starts a server and returns its address.
func (w *world) serve(opts ...grpc.ServerOption) string {
	w.t.Helper()
	srv := grpc.NewServer(append(opts,
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := w.check(ctx); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := w.check(s.Context()); err != nil {
				return err
			}
			return next(srv, s)
		}))...)
	healthpb.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(w.t, err)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) })
	w.t.Cleanup(func() {
		srv.Stop()
		serving.Wait()
	})
	return l.Addr().String()
}

// check asks the platform about the credential of a call.
func (w *world) check(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	w.mu.Lock()
	w.seen = append(w.seen, md)
	w.mu.Unlock()
	h := http.Header{}
	for name, values := range md {
		for _, v := range values {
			h.Add(name, v)
		}
	}
	if _, err := w.platform.Verify(h); err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	return nil
}

// calls returns the metadata of the calls that have reached the server.
func (w *world) calls() []metadata.MD {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

func (w *world) client(opts ...agrenting.Option) *agrenting.Client {
	w.t.Helper()
	c, err := agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.platform.URL),
		agrenting.WithCredential(agrenting.APIKey(w.key.Secret)), agrenting.WithAllowedOrigins("https://" + w.addr),
	}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { assert.NoError(w.t, c.Close()) })
	return c
}

func (w *world) dial(target string, opts ...grpc.DialOption) healthpb.HealthClient {
	w.t.Helper()
	conn, err := grpc.NewClient(target, opts...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func (w *world) dialWith(c *agrenting.Client) healthpb.HealthClient {
	return w.dial(w.addr, append(grpcagrenting.DialOptions(c), grpc.WithTransportCredentials(w.tls))...)
}

var request = &healthpb.HealthCheckRequest{}

func TestCalls_carryOneCredentialAndTheAgent(t *testing.T) {
	t.Parallel()
	for name, session := range map[string]bool{"API key": false, "session": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var opts []agrenting.Option
			if session {
				opts = []agrenting.Option{agrenting.WithSession()}
			}
			api := w.dialWith(w.client(opts...))
			_, err := api.Check(agrenting.ContextWithAgent(t.Context(), w.agent.ID), request)
			require.NoError(t, err)
			md := w.calls()[0]
			assert.Equal(t, []string{w.agent.ID}, md.Get("X-Agent-Id"))
			assert.Len(t, md.Get("X-Api-Key"), map[bool]int{false: 1, true: 0}[session])
			assert.Len(t, md.Get("Authorization"), map[bool]int{false: 0, true: 1}[session])
		})
	}
}

func TestUnary_deadSession_isSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	api := w.dialWith(w.client(agrenting.WithSession()))
	for range 3 {
		_, err := api.Check(t.Context(), request)
		require.NoError(t, err)
		w.platform.RevokeSessions()
		var callers sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				_, err := api.Check(t.Context(), request)
				assert.NoError(t, err)
			})
		}
		callers.Wait()
	}
	assert.Equal(t, 4, w.platform.Count("POST /api/v1/auth/authenticate"), "each end of a session causes one exchange")
}

func TestUnary_deadKey_endsWithUnauthenticated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	api := w.dialWith(w.client())
	w.platform.RevokeKey(w.key.ID)
	_, err := api.Check(t.Context(), request)
	assert.Equal(t, codes.Unauthenticated, status.Code(err))
	assert.NotContains(t, err.Error(), w.key.Secret)
}

func TestStream_deadSession_isRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	api := w.dialWith(w.client(agrenting.WithSession()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := func() error {
		s, err := api.Watch(ctx, request)
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	require.NoError(t, watch())
	w.platform.RevokeSessions()
	err := watch()
	assert.Equal(t, codes.Unauthenticated, status.Code(err))
	for began := time.Now(); err != nil && time.Since(began) < time.Minute; err = watch() {
		require.Equal(t, codes.Unauthenticated, status.Code(err)) // a new session is given 5 s
	}
	require.NoError(t, err)
	assert.Equal(t, 2, w.platform.Count("POST /api/v1/auth/authenticate"))
}

func TestForeignTarget_getsNoCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(agrenting.WithBaseURL(w.platform.URL))
	_, port, err := net.SplitHostPort(w.addr)
	require.NoError(t, err)
	other := "passthrough:///" + w.addr
	api := w.dial(other, append(grpcagrenting.DialOptions(c), grpc.WithTransportCredentials(w.tls), grpc.WithAuthority("example.com:"+port))...)
	_, err = api.Check(t.Context(), request)
	require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
	assert.Equal(t, codes.Unauthenticated, status.Code(err))
	require.ErrorContains(t, err, "example.com")
	s, err := api.Watch(t.Context(), request)
	if err == nil {
		_, err = s.Recv()
	}
	require.ErrorIs(t, err, agrenting.ErrForeignOrigin)
	assert.Empty(t, w.calls())
}

func TestPlainConnection_isRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client()
	_, err := grpc.NewClient(w.addr, append(grpcagrenting.DialOptions(c), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	require.ErrorContains(t, err, "transport level security")
	_, err = grpcagrenting.PerRPCCredentials(c).GetRequestMetadata(t.Context(), "https://"+w.addr+"/x")
	assert.Equal(t, codes.Unauthenticated, status.Code(err), "the security of the connection is not known")
}

func TestFailingSource_isUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.Credential{}, http.ErrServerClosed
	})), agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: -1}))
	_, err := w.dialWith(c).Check(t.Context(), request)
	assert.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorIs(t, err, http.ErrServerClosed)
	assert.Empty(t, w.calls())
}

func TestWaitingForACredential_endsWithTheCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(func(ctx context.Context) (agrenting.Credential, error) {
		<-ctx.Done()
		return agrenting.Credential{}, ctx.Err()
	})))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := w.dialWith(c).Check(ctx, request)
	assert.Equal(t, codes.DeadlineExceeded, status.Code(err))
}

func TestSourceTimeout_isUnavailable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		return agrenting.Credential{}, fmt.Errorf("vault: %w", context.DeadlineExceeded)
	})), agrenting.WithRetryPolicy(agrenting.RetryPolicy{RenewalWait: -1}))
	_, err := w.dialWith(c).Check(t.Context(), request)
	assert.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// otherCredentials are credentials of another package that cannot be obtained.
type otherCredentials struct{}

func (otherCredentials) RequireTransportSecurity() bool { return true }
func (otherCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, status.Error(codes.Unauthenticated, "not logged in")
}

func TestOtherCredentials_failure_isNotReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.client(agrenting.WithSession())
	_, err := c.Credential(t.Context())
	require.NoError(t, err)
	w.platform.RevokeSessions()
	opts := append(grpcagrenting.DialOptions(c), grpc.WithPerRPCCredentials(otherCredentials{}), grpc.WithTransportCredentials(w.tls))
	api := w.dial(w.addr, opts...)
	_, err = api.Check(t.Context(), request)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	_, err = api.Watch(t.Context(), request)
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.ErrorContains(t, err, "not logged in")
	assert.Equal(t, 1, w.platform.Count("POST /api/v1/auth/authenticate"))
	assert.Empty(t, w.calls())
}
