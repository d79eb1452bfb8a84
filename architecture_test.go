package agrenting_test

import (
	"go/ast"
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
	above := map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| ([^|]*[a-z][^|]*) \\| (.*) \\|$")
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		name, imports := m[1], m[3]
		documented[name] = imports
		above["`"+filepath.Base(name)+"`"] = true
		for imported := range strings.SplitSeq(imports, ", ") {
			assert.False(t, above[imported], "%s imports %s, which is not further down", name, imported)
		}
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
}

// The linter knows the layer of each package.
func TestLinterEnforcesTheLayerOfEachPackage(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(".golangci.yml")
	require.NoError(t, err)
	folders, err := filepath.Glob("internal/*")
	require.NoError(t, err)
	for _, folder := range append(folders, "webhook") {
		name := filepath.Base(folder)
		if slices.Contains(forTests, name) {
			continue
		}
		rule := "layer-" + name + ":\n          list-mode: lax\n          files: [\"**/" + filepath.ToSlash(folder) +
			"/*.go\", \"!$test\"]\n          deny: "
		assert.Contains(t, string(b), rule)
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

func TestInternalPackagesDocumentTheirScope(t *testing.T) {
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

// Each call of the walkthroughs is declared in a file that the same item names.
func TestWalkthroughsOfRotationsNameCallsAndFiles(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("docs/architecture.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(b), "\n## A rotation, call by call\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	declared := methodsIn(t, "internal/rotation")
	declared["Client.Rotate"] = "rotation.go"
	call := regexp.MustCompile("`([A-Za-z]+\\.[A-Za-z]+)`")
	lists := itemsIn(section)
	require.Len(t, lists, 2, "one with Overlap, and one in place")
	for _, list := range lists {
		lines := 0
		for _, item := range list {
			lines += strings.Count(item, "\n")
			for _, m := range call.FindAllStringSubmatch(item, -1) {
				if strings.HasSuffix(m[1], ".go") {
					continue
				}
				file := declared[m[1]]
				require.NotEmpty(t, file, m[1])
				if file != "ports.go" {
					assert.Contains(t, item, "`"+file+"`", m[1])
				}
			}
		}
		assert.LessOrEqual(t, lines, 20)
	}
}

// itemsIn returns the items of the numbered lists in a text.
func itemsIn(text string) (lists [][]string) {
	number := regexp.MustCompile(`^\d+\. `)
	within := false
	for line := range strings.Lines(text) {
		switch {
		case number.MatchString(line):
			if !within {
				lists = append(lists, nil)
			}
			within = true
			lists[len(lists)-1] = append(lists[len(lists)-1], line)
		case within && strings.HasPrefix(line, "   "):
			list := lists[len(lists)-1]
			list[len(list)-1] += line
		default:
			within = false
		}
	}
	return lists
}

// methodsIn returns the methods of a package, such as "work.do", and the files that
// declare them.
func methodsIn(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	require.NoError(t, err)
	out := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv != nil {
					of := n.Recv.List[0].Type
					if star, ok := of.(*ast.StarExpr); ok {
						of = star.X
					}
					if id, ok := of.(*ast.Ident); ok {
						out[id.Name+"."+n.Name.Name] = filepath.Base(file)
					}
				}
			case *ast.TypeSpec:
				if ports, ok := n.Type.(*ast.InterfaceType); ok {
					for _, m := range ports.Methods.List {
						for _, name := range m.Names {
							out[n.Name.Name+"."+name.Name] = filepath.Base(file)
						}
					}
				}
			}
			return true
		})
	}
	return out
}
