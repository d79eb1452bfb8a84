//go:build (race || 386) && !every

package sample

// Fewer reports whether tests run a sample of their scenarios. The race detector makes each
// about ten times slower, and 32 bits need no scenario twice. With neither, or with the build
// tag "every", they run all of them.
const Fewer = true
