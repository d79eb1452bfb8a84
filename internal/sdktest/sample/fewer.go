//go:build race && !every

package sample

// Fewer reports whether tests run a sample of their scenarios, because the race detector
// makes each about ten times slower. Without the detector, or with the build tag "every",
// they run all of them.
const Fewer = true
