// Package shield sends requests through a base transport and removes their credentials from
// everything that other code can see: errors, the values of panics, and the hooks of
// net/http/httptrace.
//
// It knows in which places a request carries a credential.
//
// It must not know how a credential is obtained, which origins may receive it, or what the
// platform responds.
package shield
