// Package socket moves the credential of a WebSocket handshake from a header to the
// query of the URL, where the platform wants it, and keeps it out of what comes back.
//
// It knows the two parameters that carry a credential. It does not know how a
// credential is obtained, which origins may receive it, or what a 401 means.
package socket
