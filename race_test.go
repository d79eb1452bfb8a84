//go:build race

package agrenting

// raceEnabled reports that the race detector is on, which allocates for itself.
const raceEnabled = true
