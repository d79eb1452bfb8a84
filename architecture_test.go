package agrenting_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const modulePath = "github.com/agrenting/agrenting-go"

// forTests are the internal packages that no program links.
var forTests = []string{"chaos", "sdktest", "testdata"}

func TestArchitectureNamesEachPackageAndItsImports(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("docs/architecture.md")
	require.NoError(t, err)
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(b), -1) {
		documented[m[1]] = m[2]
	}
	folders, err := filepath.Glob("internal/*")
	require.NoError(t, err)
	want := map[string]string{"agrenting": importsOf(t, "."), "webhook": importsOf(t, "webhook")}
	for _, folder := range folders {
		if !slices.Contains(forTests, filepath.Base(folder)) {
			want[filepath.ToSlash(folder)] = importsOf(t, folder)
		}
	}
	assert.Equal(t, want, documented)
	for name := range want {
		assert.Contains(t, string(b), "- **"+name+"**", "it has a paragraph")
	}
}

// importsOf lists what the package in a folder imports from this module, as the
// document writes it.
func importsOf(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	require.NoError(t, err)
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, spec := range parsed.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			if name, ok := strings.CutPrefix(path, modulePath+"/internal/"); ok {
				names = append(names, "`"+name+"`")
			}
		}
	}
	if len(names) == 0 {
		return "none"
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

func TestEachInternalPackageSaysWhatItKnows(t *testing.T) {
	t.Parallel()
	folders, err := filepath.Glob("internal/*")
	require.NoError(t, err)
	for _, folder := range folders {
		if filepath.Base(folder) == "testdata" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(folder, "doc.go"))
		require.NoError(t, err)
		assert.LessOrEqual(t, strings.Count(string(b), "\n"), 15, folder)
		text := strings.Join(strings.Fields(strings.ReplaceAll(string(b), "//", "")), " ")
		assert.Contains(t, text, "must not know", folder)
	}
}
