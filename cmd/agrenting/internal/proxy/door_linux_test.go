package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestDrainingProxyServesEarlierConnectionsOnly(t *testing.T) {
	t.Parallel()
	var listen net.ListenConfig
	listen.SetMultipathTCP(false) // the kernel refuses filters there
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	come := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	inside, err := come(t.Context())
	require.NoError(t, err)
	defer func() { _ = inside.Close() }()
	waiting, err := come(t.Context())
	require.NoError(t, err)
	defer func() { _ = waiting.Close() }()
	served, err := l.Accept()
	require.NoError(t, err)
	defer func() { _ = served.Close() }()

	tcp, ok := l.(*net.TCPListener)
	require.True(t, ok)
	if !shut(tcp) {
		t.Skip("the kernel refuses filters")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond) // an open port accepts immediately
	defer cancel()
	late, err := come(ctx)
	if err == nil {
		_ = late.Close()
	}
	nobody, ok := errors.AsType[net.Error](err)
	assert.True(t, ok && nobody.Timeout(), "who comes now is not heard: %v", err)
	assert.True(t, queued(l))
	queuer, err := l.Accept()
	require.NoError(t, err)
	defer func() { _ = queuer.Close() }()
	for name, ends := range map[string][2]net.Conn{"inside": {inside, served}, "waiting": {waiting, queuer}} {
		for _, way := range [][2]net.Conn{ends, {ends[1], ends[0]}} {
			_, err := way[0].Write([]byte("x"))
			require.NoError(t, err, name)
			got := make([]byte, 1)
			_, err = way[1].Read(got)
			require.NoError(t, err, name)
			assert.Equal(t, "x", string(got), name)
		}
	}
	assert.False(t, queued(l))
}

// The kernel has answered a caller, but the last segment of the handshake has not arrived. That is
// so for a moment on any network, and here until the caller sends data.
func TestDrainingProxyServesKeepAliveConnections(t *testing.T) {
	t.Parallel()
	listen := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			const seconds = 60
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)
		}), err)
	}}
	listen.SetMultipathTCP(false)
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	answered, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer func() { _ = answered.Close() }()
	require.False(t, queued(l))

	tcp, ok := l.(*net.TCPListener)
	require.True(t, ok)
	if !shut(tcp) {
		t.Skip("the kernel refuses filters")
	}

	_, err = answered.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, tcp.SetDeadline(time.Now().Add(time.Minute))) // it arrives immediately or never
	let, err := l.Accept()
	require.NoError(t, err)
	defer func() { _ = let.Close() }()
	got := make([]byte, 1)
	_, err = let.Read(got)
	require.NoError(t, err)
	assert.Equal(t, "x", string(got))
}
