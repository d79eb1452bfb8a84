package origin_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(sdktest.Main(m)) }

// discard reads a response to its end and closes it.
func discard(tb testing.TB, resp *http.Response) {
	tb.Helper()
	defer resp.Body.Close()
	sdktest.ReadAll(tb, resp)
}
