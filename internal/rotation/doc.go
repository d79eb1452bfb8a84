// Package rotation manages the life of an API key in a store. It returns the key
// to use, determines when the key is due, and replaces it on the platform by one
// of two strategies, so that no request fails and exactly one key is live at the
// end.
//
// It defines how the key record and its lease are used, and what the outcome of a
// platform call can mean. It must not know HTTP, headers, sessions, options, or
// public types: the root package implements the ports in ports.go.
package rotation
