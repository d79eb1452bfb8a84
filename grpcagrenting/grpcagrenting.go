// Package grpcagrenting authenticates the calls of grpc-go with the credential of an
// [agrenting.Client]. grpc-go has its own HTTP/2, so it cannot use the client's
// [net/http.RoundTripper].
//
//	conn, err := grpc.NewClient("dns:///agents.example.com:443",
//		append(grpcagrenting.DialOptions(client), grpc.WithTransportCredentials(tlsCredentials))...)
//
// # Where the credential is sent
//
// Only to targets whose origin is that of [agrenting.WithBaseURL], or is named by
// [agrenting.WithAllowedOrigins], such as "https://agents.example.com". The origin is
// the authority of the call, which the server's certificate must prove: do not set ServerName or
// InsecureSkipVerify in the TLS configuration. Calls to other targets fail before anything of
// them is sent, with an error that matches [agrenting.ErrForeignOrigin]. Connections without TLS
// are refused.
//
// # UNAUTHENTICATED
//
// A server that refuses the credential answers UNAUTHENTICATED. The interceptors report that to the
// client, which asks the platform, and renews the credential if it is dead. A unary call is then
// sent again. A stream cannot be sent again, because its messages are gone: its caller gets
// the error after the renewal, and opens another stream.
package grpcagrenting

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/agrenting/agrenting-go"
)

// DialOptions returns the options that authenticate all calls of a connection: [PerRPCCredentials]
// and both interceptors. Add [grpc.WithTransportCredentials]. The caller owns the slice.
func DialOptions(client *agrenting.Client) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithPerRPCCredentials(PerRPCCredentials(client)),
		grpc.WithChainUnaryInterceptor(UnaryClientInterceptor()),
		grpc.WithChainStreamInterceptor(StreamClientInterceptor()),
	}
}

// PerRPCCredentials returns the credentials of calls: the header of the credential in use,
// and x-agent-id if an agent was chosen by [agrenting.WithAgentID], [agrenting.Client.As], or
// [agrenting.ContextWithAgent]. Like a request, a call waits while a credential is obtained, until
// its context ends. They require TLS, and are safe for concurrent use.
//
// Without the interceptors of this package, the client does not learn that a server has refused
// the credential.
func PerRPCCredentials(client *agrenting.Client) credentials.PerRPCCredentials {
	return perRPC{client}
}

type perRPC struct{ client *agrenting.Client }

// RequireTransportSecurity implements [credentials.PerRPCCredentials].
func (perRPC) RequireTransportSecurity() bool { return true }

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (p perRPC) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	if err := credentials.CheckSecurityLevel(info.AuthInfo, credentials.PrivacyAndIntegrity); err != nil {
		return nil, status.Error(codes.Unauthenticated, "agrenting: the connection is not encrypted: "+err.Error())
	}
	if len(uri) != 1 {
		return nil, status.Error(codes.Internal, "agrenting: the target of the call is not known")
	}
	auth, err := callOf(ctx).authorize(ctx, p.client, uri[0])
	if err != nil {
		return nil, status.Error(codeOf(ctx, err), err.Error())
	}
	header := auth.Header()
	metadata := make(map[string]string, len(header))
	for name, values := range header {
		metadata[strings.ToLower(name)] = values[0]
	}
	return metadata, nil
}

// codeOf returns the code of a call with ctx that got no credential.
func codeOf(ctx context.Context, err error) codes.Code {
	switch _, renewing := errors.AsType[*agrenting.RenewalError](err); {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case ctx.Err() != nil:
		return codes.Canceled
	case renewing, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return codes.Unavailable // the source has ended, and not the call
	default:
		return codes.Unauthenticated
	}
}

// call is what one call is authenticated with.
type call struct {
	mu   sync.Mutex
	used *agrenting.Authorization // sent last, and not reported yet
	next *agrenting.Authorization // to send next, instead of the one in use then
	err  error                    // why a credential was not obtained
}

type callKey struct{}

// callOf returns the call of a context, a new one if no interceptor has put one there.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return new(call)
}

// authorize returns what to send. grpc-go asks once for each attempt.
func (c *call) authorize(ctx context.Context, client *agrenting.Client, uri string) (*agrenting.Authorization, error) {
	c.mu.Lock()
	auth := c.next
	c.used, c.next, c.err = auth, nil, nil
	c.mu.Unlock()
	if auth != nil {
		return auth, nil
	}
	auth, err := client.Authorize(ctx, uri)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used, c.err = auth, err
	return auth, err
}

// refused reports an UNAUTHENTICATED of a server to the client, once. again is set if the call may be sent again.
func (c *call) refused(ctx context.Context, err error) (again bool) {
	if status.Code(err) != codes.Unauthenticated {
		return false
	}
	c.mu.Lock()
	used := c.used
	c.used = nil
	c.mu.Unlock()
	if used == nil {
		return false // it was not sent
	}
	next, rejected := used.Rejected(ctx)
	if rejected != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = next
	return true
}

// failed adds to the error of a call why there was no credential.
func (c *call) failed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil || c.err == nil {
		return err
	}
	return &callError{status.Convert(err), c.err}
}

// callError is the status of a call, and matches the SDK's error behind it.
type callError struct {
	status *status.Status
	err    error
}

func (e *callError) Error() string              { return e.status.Err().Error() }
func (e *callError) GRPCStatus() *status.Status { return e.status }
func (e *callError) Unwrap() error              { return e.err }

// UnaryClientInterceptor returns an interceptor that sends a unary call again after
// UNAUTHENTICATED, as long as the client has something to try: another credential, or the same one if
// the platform says that it is alive. It needs [PerRPCCredentials] on the same connection. An
// error because a credential could not be obtained also matches the SDK's own, such as
// [agrenting.ErrForeignOrigin].
func UnaryClientInterceptor() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		c := new(call)
		ctx = context.WithValue(ctx, callKey{}, c)
		for {
			server := new(peer.Peer) // stays empty if nothing was sent, as when other credentials fail
			err := invoke(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.Peer(server))...)
			if server.Addr == nil || !c.refused(ctx, err) {
				return c.failed(err)
			}
		}
	}
}

// StreamClientInterceptor returns an interceptor that reports an UNAUTHENTICATED of a stream to
// the client before its caller gets it, so that a dead credential is renewed for the stream that the
// caller opens next. A session that is new, or was accepted a moment ago, may be
// tried again for up to 5 s, with a pause before each error. It needs [PerRPCCredentials] on the same connection.
func StreamClientInterceptor() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		c := new(call)
		ctx = context.WithValue(ctx, callKey{}, c)
		s, err := open(ctx, desc, cc, method, opts...)
		if err != nil { // it is not from the server, whose errors come with RecvMsg
			return nil, c.failed(err)
		}
		return &stream{ClientStream: s, ctx: ctx, call: c}, nil
	}
}

// stream reports how it ends.
type stream struct {
	grpc.ClientStream

	ctx  context.Context //nolint:containedctx // that of the caller: the stream's own ends with it
	call *call
}

// RecvMsg implements [grpc.ClientStream].
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.call.refused(s.ctx, err)
	return s.call.failed(err)
}
