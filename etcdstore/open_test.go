package etcdstore

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/test/bufconn"
)

// connections counts those that a server has had.
type connections struct {
	stats.Handler
	n atomic.Int64
}

func (c *connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (c *connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (c *connections) HandleRPC(context.Context, stats.RPCStats) {}

func (c *connections) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		c.n.Add(1)
	}
}

// store answers every read with nothing.
type store struct{ pb.UnimplementedKVServer }

func (store) Range(context.Context, *pb.RangeRequest) (*pb.RangeResponse, error) {
	return &pb.RangeResponse{Header: &pb.ResponseHeader{}}, nil
}

// advance passes virtual time.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the one place where these tests wait

func TestAnIdleConnectionIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen connections
		srv := grpc.NewServer(grpc.StatsHandler(&seen),
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second})) // as etcd has it
		pb.RegisterKVServer(srv, store{})
		wire := bufconn.Listen(1 << 10)
		go func() { _ = srv.Serve(wire) }()
		defer srv.Stop()

		cfg := Config{Endpoints: []string{"http://etcd"}, KeepAlive: defaultKeepAlive, Logger: zap.NewNop()}.client(DefaultTimeout)
		cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return wire.DialContext(ctx)
		})}
		client, err := clientv3.New(cfg)
		require.NoError(t, err)
		for range 3 {
			_, err = client.Get(t.Context(), "record")
			require.NoError(t, err)
			advance(10 * time.Minute)
		}
		assert.EqualValues(t, 1, seen.n.Load())
		require.NoError(t, client.Close())
	})
}
