package interop_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// exchange is a request of the embedded platform's own tests, with its response.
type exchange struct {
	Test, Method, URL, Body, Fault string
	Header                         http.Header
	Status                         int
	ResponseHeader                 http.Header `json:"response_header"`
	Response                       []byte
}

// made are the IDs, times, and secrets that the platform makes.
var made = regexp.MustCompile(`[0-9a-f][0-9a-f-]{7,}|\d+`)

// shape is the same for exchanges that differ only in what the platform makes.
func (e *exchange) shape() string {
	headers := slices.Sorted(maps.Keys(e.Header))
	return fmt.Sprint(e.Status, made.ReplaceAllString(fmt.Sprint(e.Method, e.URL, headers, e.Fault, "\n", e.Body, "\n", string(e.Response)), "#"))
}

// trafficOfTests runs the embedded platform's tests and returns their exchanges, each
// shape once.
func trafficOfTests(t *testing.T) []exchange {
	t.Helper()
	dir := t.TempDir()
	file, program := filepath.Join(dir, "traffic"), filepath.Join(dir, "tests.exe")
	// "go test" would leave its tests running if it were killed. These end by themselves,
	// even if this process does not live to see it.
	for _, args := range [][]string{
		{"go", "test", "-c", "-o", program, "."},
		{program, "-test.timeout=4m"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = filepath.Join("..", "agrentingtest")
		cmd.Env = append(os.Environ(), "GOWORK=off", "AGRENTINGTEST_TRAFFIC="+file)
		cmd.WaitDelay = 10 * time.Second
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	f, err := os.Open(file)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	var all []exchange
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	known := map[string]bool{}
	for lines.Scan() {
		var e exchange
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		if shape := e.shape(); !known[shape] {
			known[shape] = true
			all = append(all, e)
		}
	}
	require.NoError(t, lines.Err())
	return all
}

//nolint:paralleltest // the tests that it runs take all cores, and others have time limits
func TestEmbeddedPlatformTestsMatchOpenAPI(t *testing.T) {
	v := newWitness(t, nil)
	skipped := map[string]bool{}
	for _, e := range trafficOfTests(t) {
		name, _, _ := strings.Cut(e.Test, "/")
		if deviant[name] {
			skipped[name] = true
			continue
		}
		req, err := http.NewRequestWithContext(t.Context(), e.Method, e.URL, strings.NewReader(e.Body))
		require.NoError(t, err)
		req.Header = e.Header
		if e.Body != "" && req.Header.Get("Content-Type") == "" {
			req.Header.Set("Content-Type", "application/json")
		}
		switch {
		case e.Fault != "": // such as a page of a gateway
			continue
		case !strings.HasPrefix(req.URL.Path, "/api/v1/") && req.URL.Path != "/auth/authenticate": // a route of the test
			continue
		case strings.Contains(string(e.Response), `"code":"`+agrentingtest.CodeRouteNotFound):
			continue
		}
		before := len(v.problems)
		v.judge(req, &http.Response{StatusCode: e.Status, Header: e.ResponseHeader}, e.Response)
		for i := range v.problems[before:] {
			v.problems[before+i] = e.Test + ": " + v.problems[before+i]
		}
	}
	v.verdict(t)
	assert.Equal(t, deviant, skipped, "a test that is not there needs no exception")
	for _, r := range platformRoutes(t) {
		assert.NotEmpty(t, v.answers[r], "%s has no test", r)
	}
}

// deviant are the tests of options that have the platform deviate from the document.
var deviant = map[string]bool{
	"TestSecretHasTheChosenFieldName":  true,
	"TestTruncatedResponsesContainKey": true,
	"TestAuthenticateUsesChosenFormat": true,
}
