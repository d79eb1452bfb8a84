//go:build !race

package sdktest

// RaceEnabled reports whether the race detector is on. The detector makes the
// program slower and allocates memory.
const RaceEnabled = false
