package retry_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestMain(m *testing.M) { os.Exit(sdktest.Main(m)) }

// readAll reads a response to its end and closes it.
func readAll(tb testing.TB, resp *http.Response) string {
	tb.Helper()
	defer resp.Body.Close()
	return sdktest.ReadAll(tb, resp)
}
