package agrenting

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Limits of this package. What exceeds them belongs into an internal package, or is not
// needed.
const (
	maxLines   = 9_500
	maxNames   = 175
	maxMethods = 60 // exported, besides those of standard interfaces
)

// standardMethods are those that fmt, slog, encoding, and errors call.
var standardMethods = []string{
	"String", "GoString", "Format", "LogValue", "Error", "Unwrap", "Is", "As",
	"MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "MarshalBinary", "UnmarshalBinary",
}

func TestPackageIsSmall(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	lines, names, methods := 0, 0, 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		lines += strings.Count(string(b), "\n")
		parsed, err := parser.ParseFile(token.NewFileSet(), file, b, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range parsed.Decls {
			n, m := exportedIn(decl)
			names, methods = names+n, methods+m
		}
	}
	t.Logf("%d lines, %d names, %d methods", lines, names, methods)
	assert.LessOrEqual(t, lines, maxLines)
	assert.LessOrEqual(t, names, maxNames)
	assert.LessOrEqual(t, methods, maxMethods)
	assert.Greater(t, names, 100, "they were counted")
	assert.Greater(t, methods, 30, "they were counted")
}

// exportedIn counts the exported names of a declaration, and its exported methods of
// exported types.
func exportedIn(decl ast.Decl) (names, methods int) {
	if f, ok := decl.(*ast.FuncDecl); ok {
		switch {
		case !f.Name.IsExported():
		case f.Recv == nil:
			names++
		case ast.IsExported(receiverOf(f)) && !slices.Contains(standardMethods, f.Name.Name):
			methods++
		}
		return names, methods
	}
	group, ok := decl.(*ast.GenDecl)
	if !ok {
		return names, methods
	}
	for _, spec := range group.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() {
				names++
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() {
					names++
				}
			}
		}
	}
	return names, methods
}

// receiverOf returns the name of a method's type.
func receiverOf(f *ast.FuncDecl) string {
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	if name, ok := of.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}
