package sdktest

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// GoroutineGrace is how long goroutines may take to end after the last test.
// net/http ends the goroutines of a connection shortly after it is closed.
const GoroutineGrace = 10 * time.Second

// LastingGoroutines returns the stacks of goroutines that do not belong to the
// runtime or the testing package and do not end within the grace.
func LastingGoroutines(grace time.Duration) []string {
	for end := time.Now().Add(grace); ; <-time.After(10 * time.Millisecond) {
		left := goroutines()
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// ownGoroutines are functions of goroutines that run in every test binary.
var ownGoroutines = []string{
	"testing.(*M).", "testing.runTests", "testing.tRunner", "testing.runFuzz", "testing.RunTests",
	"os/signal.loop", "os/signal.signal_recv", "runtime.ReadTrace", "runtime.ensureSigM",
	"runtime/pprof.", "runtime/trace.",
}

// goroutines returns the stacks of all other goroutines. The first one is the
// caller's.
func goroutines() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	stacks := strings.Split(strings.TrimSpace(string(buf)), "\n\n")[1:]
	return slices.DeleteFunc(stacks, func(stack string) bool {
		return slices.ContainsFunc(ownGoroutines, func(own string) bool {
			return strings.Contains(stack, "\n"+own)
		})
	})
}

// Main runs the tests of a package, and returns the exit code for TestMain. The
// run fails if it leaves goroutines behind.
func Main(m *testing.M) int {
	code := m.Run()
	// A fuzzing run keeps the goroutines of its workers. Its tests have already
	// run.
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		if left := LastingGoroutines(GoroutineGrace); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: %d goroutines are left after all tests:\n\n%s\n",
				len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	return code
}
