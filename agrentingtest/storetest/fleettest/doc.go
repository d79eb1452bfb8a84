// Package fleettest tests a shared store with the processes of a fleet: they make
// requests, rotate their key, and are killed, while the store's server is killed and
// cut off. The stores of this repository are tested with it.
//
// A test calls [Worker] in TestMain, and [Run] in the test of a fleet. It passes
// functions that open the store, stop its server, and read the history of the key
// record. The package uses testify, which the SDK's own tests need as well.
package fleettest
