// Package session exchanges an API key for sessions, and shares the sessions
// with other processes through a record in a store.
//
// It handles the documented forms of the authenticate endpoint's responses, the
// session record and its lease, the use of sessions that another process has
// obtained, and the limit of exchanges per minute.
//
// It must not know HTTP, the public types of the SDK, how requests carry a
// credential, or when a session is renewed. Package renew decides when to renew,
// and calls [Source.Fetch].
package session
