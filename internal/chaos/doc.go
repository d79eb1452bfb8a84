// Package chaos is a TCP proxy on the loopback interface for tests. It does to
// connections what networks, load balancers, and dying servers do: it delays, resets,
// stalls, and loses and trickles responses.
//
// It knows that the two sides take turns: what the client sends first, or after a
// response, begins an exchange, and each exchange may have one fault. Faults are
// scripted ([Proxy.Next]) or drawn from a mix ([Proxy.Set]), and the n-th exchange of
// a seed draws the same fault in every run.
//
// It must not know HTTP or the SDK.
package chaos
