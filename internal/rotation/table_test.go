package rotation

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The comment of machine.go has a row of six cells for each state.
func TestStateTableIsWhole(t *testing.T) {
	t.Parallel()
	code := tableIn(t, "machine.go", "// ")
	require.Len(t, code, 13, "a head, a line, and eleven states")
	for _, row := range code {
		assert.Equal(t, 7, strings.Count(row, "|"), row)
	}
}

func tableIn(t *testing.T, path, prefix string) (rows []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), prefix)
		switch {
		case ok && strings.HasPrefix(line, "| state | record says |"):
			rows = []string{line}
		case ok && rows != nil && strings.HasPrefix(line, "|"):
			rows = append(rows, line)
		case rows != nil:
			return rows
		}
	}
	require.NotEmpty(t, rows, "%s has no state table", path)
	return rows
}
