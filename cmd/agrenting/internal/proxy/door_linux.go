package proxy

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// flags is where the flags of a TCP segment are, syn the one that asks for a
// connection (RFC 9293, section 3.1).
const flags, syn = 13, 0x02

// shut makes a listening port deaf: who comes from now on is not heard and finds
// it closed when trying again, a second later, while those who had come are still
// let in. Merely closing it would cut off callers that wait in its queue, whose
// requests are sent already. Only what asks for a connection is dropped: a caller
// who has been answered is inside, whether or not the port has heard of it.
//
// The kernel refuses this to ports of Multipath TCP, which Go opens unless told
// otherwise, and perhaps in a sandbox. Such a port lets callers in until it closes,
// and the result is false.
func shut(l *net.TCPListener) (done bool) {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	program := [...]unix.SockFilter{ // it sees a segment from its TCP header on
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, Jf: 1, K: syn},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32},
	}
	_ = raw.Control(func(fd uintptr) {
		done = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}) == nil
	})
	return done
}

// queued reports whether a connection waits to be accepted. That a deadline has passed
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
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} // #nosec G115 -- a file descriptor fits
		n, err := unix.Poll(fds, 0)
		found = err == nil && n > 0
	})
	return found
}
