package bench

import (
	"flag"
	"os"
	"runtime"
	"testing"
)

// heap makes the live heap as large as that of a program, not of a test: with
// next to nothing alive, the collector runs each few milliseconds and costs
// more than what is measured.
var heap = flag.Int("heap", 0, "`MiB` of live heap while benchmarks run")

func TestMain(m *testing.M) {
	flag.Parse()
	ballast := make([]byte, *heap<<20)
	touch(2 * *heap << 20)
	code := m.Run()
	runtime.KeepAlive(ballast)
	os.Exit(code)
}

var sink []byte

// touch allocates that many bytes in small pieces. Whichever benchmark is the
// first would otherwise pay for the pages that the heap grows by.
func touch(n int) {
	const piece = 512
	for range n / piece {
		sink = make([]byte, piece)
	}
}
