package agrenting_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	promise    = regexp.MustCompile(`(?m)^(\d+)\. `)
	promiseRow = regexp.MustCompile("(?m)^\\| (\\d+) \\| (`.*`) \\|$")
	testName   = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9_]+)\(`)
)

// TestPromisesNameTheirTests reads SECURITY.md: each promise has a row with tests, and
// the tests exist.
func TestPromisesNameTheirTests(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	text := string(b)
	rows := map[string]string{}
	for _, m := range promiseRow.FindAllStringSubmatch(text, -1) {
		assert.NotContains(t, rows, m[1], "promises with two rows")
		rows[m[1]] = m[2]
	}
	promises := promise.FindAllStringSubmatch(text, -1)
	require.NotEmpty(t, promises)
	for i, m := range promises {
		assert.Equal(t, strconv.Itoa(i+1), m[1], "numbers of promises")
		assert.Contains(t, rows, m[1], "promises with a row")
		delete(rows, m[1])
	}
	assert.Empty(t, rows, "rows without a promise")

	exists := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		code, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(code, -1) {
			exists[string(m[1])] = true
		}
		return err
	}))
	named := testName.FindAllStringSubmatch(text, -1)
	assert.Greater(t, len(named), len(promises))
	for _, m := range named {
		assert.True(t, exists[m[1]], "SECURITY.md names %s, which does not exist", m[1])
	}
}
