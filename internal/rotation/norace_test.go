//go:build !race

package rotation

// raceEnabled reports whether the race detector is on, which makes everything
// slower by an order of magnitude.
const raceEnabled = false
