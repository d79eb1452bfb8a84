// Package chaos is a TCP proxy on the loopback interface for tests. It does to
// connections what networks, load balancers, and dying servers do: it delays and
// resets them, stalls them, and loses or slows down responses.
//
// The two sides take turns: an exchange begins with the client's first bytes, or with
// its first bytes after a response. Each exchange may have one fault. Faults are
// scripted ([Proxy.Next]) or drawn from a mix ([Proxy.Set]). For a given seed, the
// n-th exchange draws the same fault in every run.
//
// It must not know HTTP or the SDK.
package chaos
