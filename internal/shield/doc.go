// Package shield sends requests through a base transport and keeps their credentials from
// what others see of them: errors, the values of panics, and the hooks of net/http/httptrace.
//
// It knows where a request carries a credential.
//
// It must not know how a credential is obtained, which origins may receive it, or what the
// platform answers.
package shield
