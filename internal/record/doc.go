// Package record keeps the SDK's records in a store of bytes. It has the
// encoding of records, the checks that a record must pass before it is used, a
// compare-and-swap that recognizes its own writes, and the lease that lets only
// one process at a time work on a record.
//
// It defines the contents of a key record and of a session record. It must not
// know the platform, HTTP, when a key is due, or what a session is used for.
package record
