// Package fleettest tests a shared store with the processes of a fleet: they make
// requests, rotate their key, and are killed, while the store's server is killed and
// cut off. The tests of each store module use it. Only tests import it.
//
// It knows the public surface of the SDK and the platform of agrentingtest. It must
// not know any store: a test passes functions that open one and stop its server.
package fleettest
