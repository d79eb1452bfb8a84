// Package sdktest contains what the tests of the root package and of the
// packages below it share: platforms with clients, scripted transports, sources,
// and stores, and checks for leaked secrets and goroutines. Only tests import
// it.
//
// It uses the public API of the SDK, the platform of agrentingtest, and the
// format of records. It must not know how the SDK does its work: tests that do
// stay next to what they test.
package sdktest
