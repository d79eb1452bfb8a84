//go:build !race

package etcdstore_test

const fleetRotations = 100
