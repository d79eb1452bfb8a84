// Package renew keeps one value that expires, such as a token, available to many
// concurrent readers, and replaces it before it expires.
//
// It handles lifetimes, two clocks, and generations. It lets all waiting readers
// share one fetch, and decides which readers may wait for the next attempt after a
// failure.
//
// It must not know HTTP, the platform, or what the value is. A source is a function,
// and a rejection names a generation.
package renew
