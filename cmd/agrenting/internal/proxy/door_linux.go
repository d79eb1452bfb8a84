package proxy

import (
	"math"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// flags is the offset of the flags in a TCP segment. syn is the flag that requests a connection
// (RFC 9293, section 3.1).
const flags, syn = 13, 0x02

// shut makes a listening port ignore new connections. Callers retry a second later, and then find
// the port closed. Connections that are already in the queue are still accepted. Closing the port
// would cut off these callers, although they may have sent their requests. Only segments that
// request a connection are dropped: the kernel completes a handshake that it has answered.
//
// The kernel does not permit this for Multipath TCP, which Go uses by default, and perhaps not in a
// sandbox. In that case, the port accepts connections until it closes, and shut returns false.
func shut(l *net.TCPListener) (done bool) {
	raw, err := l.SyscallConn()
	if err != nil {
		return false
	}
	program := [...]unix.SockFilter{ // a segment begins at its TCP header
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

// queued reports whether a connection waits to be accepted. A deadline for Accept would not be
// reliable: on a busy machine, it passes before Accept runs.
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
