package interop_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// goroutineGrace is how long goroutines may take to end after the last test:
// those of connections end a moment after they are closed.
const goroutineGrace = 10 * time.Second

// TestMain fails the whole run if anything is left running once every client,
// theirs and ours, has been closed.
func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	for end := time.Now().Add(goroutineGrace); code == 0 && runtime.NumGoroutine() > 1; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "FAIL: goroutines are left after all tests")
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // it is the last thing that happens
			code = 1
		}
	}
	os.Exit(code)
}
