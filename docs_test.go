package agrenting_test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"go/ast"
	"go/format"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// snippet is a block of Go in a document.
type snippet struct {
	file string
	line int
	code string
}

// documents are the files whose Go has to hold.
func documents(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	return append(files, "README.md")
}

func snippetsOf(t *testing.T, file string) (out []snippet) {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var code []string
	begin := 0
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case begin == 0 && strings.TrimSpace(line) == "```go":
			begin, code = i+2, nil
		case begin > 0 && strings.TrimSpace(line) == "```":
			out = append(out, snippet{file: file, line: begin, code: strings.Join(code, "\n") + "\n"})
			begin = 0
		case begin > 0:
			code = append(code, line)
		}
	}
	return out
}

// TestTheGoInTheDocumentsCompiles vets every block that is a whole file, runs
// those that are tests, and type-checks the others as far as one can know what
// surrounds them.
func TestTheGoInTheDocumentsCompiles(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it runs the go command")
	}
	imports := newImports(t)
	for _, file := range documents(t) {
		for _, s := range snippetsOf(t, file) {
			t.Run(fmt.Sprintf("%s:%d", s.file, s.line), func(t *testing.T) {
				t.Parallel()
				if strings.HasPrefix(s.code, "package ") || strings.Contains(s.code, "\npackage ") {
					s.build(t)
					return
				}
				s.check(t, imports)
			})
		}
	}
}

// build has the go command vet a program, or run a test, as a part of this
// module.
func (s snippet) build(t *testing.T) {
	t.Helper()
	formatted, err := format.Source([]byte(s.code))
	require.NoError(t, err)
	assert.Equal(t, s.code, string(formatted), "it is not formatted")
	name, command := "main.go", "vet"
	if strings.Contains(s.code, "testing.T)") {
		name, command = "main_test.go", "test"
	}
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(s.code), 0o600))
	out, err := exec.CommandContext(t.Context(), "go", command, path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// unknowable are the complaints about a fragment that come from what is not
// shown around it: its variables, and what is done with them.
var unknowable = regexp.MustCompile(`^undefined: \w+$|^declared and not used|^missing return|^too many return values|^not enough return values|used and not used|imported (as \w+ )?and not used`)

// check parses a fragment as statements or declarations, and checks the types of
// what it says about packages.
func (s snippet) check(t *testing.T, imports *imports) {
	t.Helper()
	const header = "package p\n\nimport (\n%s)\n\n"
	head := fmt.Sprintf(header, imports.spec)
	file, err := parser.ParseFile(imports.fset, s.file, head+s.code, parser.SkipObjectResolution)
	if err != nil {
		file, err = parser.ParseFile(imports.fset, s.file, head+"func _() {\n"+s.code+"}\n", parser.SkipObjectResolution)
	}
	require.NoError(t, err, "it is neither declarations nor statements")
	formatted, err := format.Source([]byte(s.code))
	require.NoError(t, err)
	assert.Equal(t, s.code, string(formatted), "it is not formatted")
	conf := types.Config{Importer: imports, Error: func(err error) {
		if e, ok := err.(types.Error); ok && !unknowable.MatchString(e.Msg) { //nolint:errorlint // as documented
			t.Errorf("near line %d: %s", s.line+imports.fset.Position(e.Pos).Line-strings.Count(head, "\n")-1, e.Msg)
		}
	}}
	_, _ = conf.Check("p", imports.fset, []*ast.File{file}, nil)
}

// imports resolves what fragments may refer to without saying so.
type imports struct {
	fset *token.FileSet
	gc   types.Importer
	spec string
}

func newImports(t *testing.T) *imports {
	t.Helper()
	im := &imports{fset: token.NewFileSet()}
	paths := []string{
		"context", "crypto/tls", "errors", "fmt", "io", "log/slog", "net/http", "net/http/httputil", "net/url", "os", "testing",
		"testing/synctest", "time", "github.com/stretchr/testify/assert", "github.com/stretchr/testify/require",
		"github.com/agrenting/agrenting-go", "github.com/agrenting/agrenting-go/agrentingtest",
		"github.com/agrenting/agrenting-go/webhook",
	}
	for _, p := range paths {
		im.spec += fmt.Sprintf("\t%q\n", p)
	}
	args := append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, paths...)
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	exports := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if path, file, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			exports[path] = file
		}
	}
	im.gc = importer.ForCompiler(im.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	for _, p := range paths { // the importer is not safe for concurrent use
		_, err := im.gc.Import(p)
		require.NoError(t, err)
	}
	return im
}

// Import implements types.Importer. All packages have been read before.
func (im *imports) Import(path string) (*types.Package, error) { return im.gc.Import(path) }

// papers are all documents of the repository.
func papers(t *testing.T) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			files = append(files, path)
		}
		return nil
	}))
	return files
}

var (
	fencedCode = regexp.MustCompile("(?ms)^ *```.*?\n *```")
	inlineCode = regexp.MustCompile("`[^`]*`")
	headingOf  = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
	linkIn     = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
)

// anchorsOf are the names that the headings of a document can be linked by.
func anchorsOf(t *testing.T, file string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	anchors := map[string]bool{}
	for _, m := range headingOf.FindAllStringSubmatch(fencedCode.ReplaceAllString(string(b), ""), -1) {
		anchors[anchorOf(m[1])] = true
	}
	return anchors
}

// anchorOf is what GitHub makes of a heading: letters, digits and hyphens stay,
// blanks become hyphens.
func anchorOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, heading)
}

// TestLinksBetweenDocumentsLeadSomewhere looks at links to files, and to the
// headings in them.
func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, file := range papers(t) {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		text := inlineCode.ReplaceAllString(fencedCode.ReplaceAllString(string(b), ""), "")
		for _, m := range linkIn.FindAllStringSubmatch(text, -1) {
			target := file
			if m[1] != "" {
				target = filepath.Join(filepath.Dir(file), m[1])
			}
			if _, err := os.Stat(target); !assert.NoError(t, err, "%s links to %s", file, m[1]) {
				continue
			}
			if m[2] != "" && filepath.Ext(target) == ".md" {
				assert.Contains(t, anchorsOf(t, target), m[2], "%s links to a heading of %s", file, target)
			}
		}
	}
}

// TestTheIndexHasEveryGuide keeps guides from being written and not found.
func TestTheIndexHasEveryGuide(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	for _, index := range []string{"docs/README.md", "README.md"} {
		b, err := os.ReadFile(index)
		require.NoError(t, err)
		linked := map[string]bool{}
		for _, m := range linkIn.FindAllStringSubmatch(string(b), -1) {
			linked[filepath.Join(filepath.Dir(index), m[1])] = true
		}
		for _, file := range files {
			if file != "docs/README.md" {
				assert.True(t, linked[file], "%s does not lead to %s", index, file)
			}
		}
	}
}

func TestHeadingsAreLinkedAsTheHostDoes(t *testing.T) {
	t.Parallel()
	for heading, want := range map[string]string{
		"Where it goes": "where-it-goes", "`exec` -- COMMAND": "exec----command",
		"The token endpoint returns 503 for 2 s": "the-token-endpoint-returns-503-for-2-s", "What happens when …": "what-happens-when-",
		"Sandbox, and CI": "sandbox-and-ci", "a_b": "a_b",
	} {
		assert.Equal(t, want, anchorOf(heading))
	}
}

// TestPicturesAreWellFormed reads every picture of the documents.
func TestPicturesAreWellFormed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("docs/img/*.svg")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		require.NoError(t, err)
		root := ""
		for d := xml.NewDecoder(bytes.NewReader(b)); err == nil; {
			var token xml.Token
			token, err = d.Token()
			if start, ok := token.(xml.StartElement); ok && root == "" {
				root = start.Name.Local
			}
		}
		require.ErrorIs(t, err, io.EOF, file)
		assert.Equal(t, "svg", root, file)
	}
}
