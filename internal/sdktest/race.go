//go:build race

package sdktest

// RaceEnabled reports whether the race detector is on, which makes everything
// slower and allocates for itself.
const RaceEnabled = true
