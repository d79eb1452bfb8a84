// Package socket puts the credential of a WebSocket handshake into the query of the
// URL, where the platform requires it, and removes it from the headers of
// responses.
//
// It defines the two parameters that carry a credential.
//
// It must not know how a credential is obtained, which origins may receive it, or
// what a 401 means.
package socket
