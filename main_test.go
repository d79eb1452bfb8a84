package agrenting

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// goroutineGrace is how long goroutines may take to end after the last test:
// net/http ends those of a connection a moment after it is closed.
const goroutineGrace = 10 * time.Second

// TestMain fails the whole run if it leaves goroutines behind.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	// A fuzzing run keeps its workers' goroutines; its tests have run before.
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		if left := lastingGoroutines(goroutineGrace); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: %d goroutines are left after all tests:\n\n%s\n",
				len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// lastingGoroutines are those that neither belong to the runtime or the testing
// package nor end within the grace.
func lastingGoroutines(grace time.Duration) []string {
	for end := time.Now().Add(grace); ; <-time.After(10 * time.Millisecond) {
		left := goroutines()
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
	}
}

// ownGoroutines are the functions of goroutines that run in every test binary.
var ownGoroutines = []string{
	"testing.(*M).", "testing.runTests", "testing.tRunner", "testing.runFuzz", "testing.RunTests",
	"os/signal.loop", "os/signal.signal_recv", "runtime.ReadTrace", "runtime.ensureSigM",
	"runtime/pprof.", "runtime/trace.",
}

// goroutines are the stacks of all others. The first one is the caller's.
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

func TestTheGateSeesAGoroutineThatStays(t *testing.T) { //nolint:paralleltest // looks at all goroutines
	stop, done := make(chan struct{}), make(chan struct{})
	go lingering(stop, done)
	stays := func(stack string) bool { return strings.Contains(stack, "agrenting-go.lingering(") }
	assert.True(t, slices.ContainsFunc(lastingGoroutines(20*time.Millisecond), stays))
	close(stop)
	<-done
	assert.False(t, slices.ContainsFunc(lastingGoroutines(goroutineGrace), stays))
}

func lingering(stop, done chan struct{}) {
	<-stop
	close(done)
}
