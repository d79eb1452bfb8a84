//go:build race

package etcdstore_test

// fleetRotations is less with the race detector, which slows processes down.
const fleetRotations = 40
