package interop_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// trimmed is code without its indentation and without names that only the
// examples have.
func trimmed(code string) string {
	lines := strings.Split(code, "\n")
	for i := range lines {
		lines[i] = strings.ReplaceAll(strings.TrimSpace(lines[i]), "client.Client", "client")
	}
	return strings.Join(lines, "\n")
}

func TestGuideCodeMatchesExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	var code strings.Builder
	for _, name := range files {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		code.WriteString(trimmed(string(b)))
	}
	manual, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	blocks := strings.Split(string(manual), "```go\n")[1:]
	require.GreaterOrEqual(t, len(blocks), 12)
	for _, b := range blocks {
		b, _, ended := strings.Cut(b, "\n```")
		require.True(t, ended)
		assert.Contains(t, code.String(), trimmed(b))
	}
}
