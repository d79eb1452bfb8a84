//go:build !linux

package proxy

import "net"

// shut returns false: this system cannot close a port only to new connections.
func shut(*net.TCPListener) bool { return false }

// queued returns false: this system cannot report waiting connections.
func queued(net.Listener) bool { return false }
