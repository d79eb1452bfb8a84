package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEveryCommandHasTwoExamples(t *testing.T) {
	t.Parallel()

	seen := 0
	for _, leaf := range newProgram(&grammar{}).Leaves() {
		list := examples[leaf.Path()]
		require.Len(t, list, 2, leaf.Path())
		seen++
		for _, example := range list {
			words := strings.Fields(strings.Trim(strings.TrimPrefix(example, "source <("), ")"))
			if i := strings.IndexAny(example, "|>"); i >= 0 {
				words = strings.Fields(example[:i])
			}
			require.Equal(t, "agrenting", words[0], example)
			selected, _, err := newProgram(&grammar{}).Parse(words[1:])
			if strings.Contains(example, "'") { // a shell splits it otherwise
				continue
			}
			require.NoError(t, err, example)
			assert.Equal(t, leaf.Path(), selected.Path(), example)
		}
	}
	assert.Len(t, examples, seen)
}

func TestHelpShowsOwnFlagsFirst(t *testing.T) {
	t.Parallel()

	w := &world{env: map[string]string{}}
	require.Equal(t, codeOK, w.run(t, "keys", "rotate", "--help"))
	last := -1
	for _, part := range []string{"Usage: agrenting keys rotate", "--strategy", "Examples:\n  agrenting keys rotate --store keys\n", "Common flags", "--url=URL"} {
		at := strings.Index(w.out, part)
		assert.Greater(t, at, last, part)
		last = at
	}
	assert.Equal(t, 1, strings.Count(w.out, "--url"))
	for line := range strings.Lines(w.out) {
		assert.LessOrEqual(t, len(strings.TrimRight(line, "\n")), 100, line)
	}
}

// Only a single word, a flag, and the usage line may be longer than a line.
func TestHelpFitsNarrowTerminals(t *testing.T) {
	t.Parallel()

	for _, width := range []int{20, 34, 35, 36, 40, 60, 80} {
		program := newProgram(&grammar{})
		for _, c := range append(program.Leaves(), program) {
			for line := range strings.Lines(c.Usage(width)) {
				line = strings.TrimRight(line, "\n")
				if strings.Contains(strings.TrimSpace(line), " ") && !strings.HasPrefix(line, "Usage:") && !strings.HasPrefix(line, "  -") {
					assert.LessOrEqual(t, len(line), width, "%s: %q", c.Path(), line)
				}
			}
		}
	}
}

func TestWrapped(t *testing.T) {
	t.Parallel()

	assert.Equal(t, "  aa bb\n  cc\n", wrapped([]string{"aa", "bb", "cc"}, 8))
	assert.Equal(t, "  longer-than-that\n  b\n", wrapped([]string{"longer-than-that", "b"}, 8))
}
