// Package wire knows how the platform's answers are written: the envelope, errors,
// lists of several pages, newly issued secrets, and the headers about rate limits
// and dates. It also has the names of the request headers, the default base
// transport, and the steps of a call: make the request, send it, read a bounded
// answer, all or ahead, and notice that it was canceled.
//
// It must not know which credential a call carries, where that comes from, or
// whether a call may be retried: callers pass the headers and the func that sends.
package wire
