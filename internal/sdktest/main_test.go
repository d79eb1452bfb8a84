package sdktest_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(sdktest.Main(m)) }

func TestLeakCheckFindsGoroutine(t *testing.T) { //nolint:paralleltest // looks at all goroutines
	stop, done := make(chan struct{}), make(chan struct{})
	go lingering(stop, done)
	stays := func(stack string) bool { return strings.Contains(stack, "sdktest_test.lingering(") }
	assert.True(t, slices.ContainsFunc(sdktest.LastingGoroutines(20*time.Millisecond), stays))
	close(stop)
	<-done
	assert.False(t, slices.ContainsFunc(sdktest.LastingGoroutines(sdktest.GoroutineGrace), stays))
}

func lingering(stop, done chan struct{}) {
	<-stop
	close(done)
}
