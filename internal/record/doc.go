// Package record keeps the SDK's records in a store of bytes: their encoding,
// the checks that a record must pass before it is used, compare-and-swap that
// recognizes its own writes, and the lease that lets one process work on a
// record at a time.
//
// It knows what a key record and a session record consist of. It must not know
// the platform, HTTP, when a key is due, or what a session is used for.
package record
