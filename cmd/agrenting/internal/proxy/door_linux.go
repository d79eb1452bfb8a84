package proxy

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// shut makes a listening port deaf: who comes from now on is not heard and finds
// it closed when trying again, while those who had come are still let in. Merely
// closing it would cut off callers that wait in its queue, whose requests are
// sent already.
func shut(l *net.TCPListener) {
	raw, err := l.SyscallConn()
	if err != nil {
		return
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0}
	_ = raw.Control(func(fd uintptr) { // without it, closing is a little less gentle
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	})
}

// queued reports whether somebody waits to be let in. That a deadline has passed
// does not tell: on a busy machine it passes before anybody has looked.
func queued(l net.Listener) (found bool) {
	c, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a file descriptor fits
		n, err := unix.Poll(fds, 0)
		found = err == nil && n > 0
	})
	return found
}
