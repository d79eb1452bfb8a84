// Package session exchanges an API key for sessions, and shares them with other
// processes through a record in a store.
//
// It knows the shapes of the authenticate endpoint's responses, the session
// record and its lease, when another process's session can be used, and how many
// exchanges may be made in a minute.
//
// It must not know HTTP, the public types of the SDK, how requests carry a
// credential, or when a session is renewed: package renew decides that and calls
// [Source.Fetch].
package session
