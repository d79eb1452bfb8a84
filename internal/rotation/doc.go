// Package rotation manages the life of an API key in a store: it gives out the
// key to use, knows when the key is due, and replaces it on the platform by one of
// two strategies, so that no request fails and exactly one key is live in the end.
//
// It knows the key record, its lease, and what a platform call can mean. It must
// not know HTTP, headers, sessions, options, or public types: the root package
// implements the ports in ports.go.
package rotation
