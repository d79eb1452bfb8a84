// Package renew keeps one value that expires, such as a token, available to many
// concurrent readers, and replaces it in time.
//
// It knows lifetimes, two clocks, generations, how to share one fetch among all who
// wait, and who may wait for the next attempt after a failure.
//
// It must not know HTTP, the platform, or what the value is: a source is a function,
// and a rejection names a generation.
package renew
