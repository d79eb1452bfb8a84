// Package wire defines how the platform's responses are written: the envelope,
// errors, lists with several pages, newly issued secrets, and the headers about
// rate limits and dates. It also contains the names of the request headers, the
// default base transport, and the steps of a call: creating the request, sending
// it, reading a bounded response, and reacting when the call is canceled.
//
// It must not know which credential a call carries, where that credential comes
// from, or whether a call may be retried. Callers pass the headers and the
// function that sends.
package wire
