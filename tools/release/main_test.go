package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

var at = time.Date(2026, 11, 2, 3, 4, 6, 0, time.UTC)

func TestSourcesThatDoNotGoWithAVersionAreRefused(t *testing.T) {
	t.Parallel()
	const mod = "module x\n\nrequire (\n\tgithub.com/agrenting/agrenting-go v1.2.3\n" +
		"\tgithub.com/agrenting/agrenting-go/agrentingtest/mcptest v1.2.3\n" +
		"\tgithub.com/agrenting/agrenting-go/agrentingtest/sockettest v1.2.3\n\texample.com/other v0.1.0\n)\n"
	good := map[string]string{
		"version.go":           "package agrenting\n\nconst Version = \"1.2.3\"\n",
		"CHANGELOG.md":         "# Changelog\n\n## [1.2.3] - 2026-11-02\n",
		"cmd/agrenting/go.mod": mod,
	}
	for name, c := range map[string]struct{ file, text, want string }{
		"fine":             {"version.go", good["version.go"], ""},
		"another constant": {"version.go", "const Version = \"1.2.4\"\n", "version.go"},
		"no constant":      {"version.go", "", "version.go"},
		"no changes told":  {"CHANGELOG.md", "## Unreleased\n", "CHANGELOG.md"},
		"a longer version": {"CHANGELOG.md", "## 1.2.30\n", "CHANGELOG.md"},
		"a replace line":   {"cmd/agrenting/go.mod", mod + "\nreplace github.com/agrenting/agrenting-go => ../..\n", "replace line"},
		"a replace block":  {"cmd/agrenting/go.mod", mod + "\nreplace (\n\tx => y\n)\n", "replace line"},
		"another library":  {"cmd/agrenting/go.mod", strings.Replace(mod, "go v1.2.3", "go v1.2.2", 1), "requires v1.2.2 of github.com/agrenting/agrenting-go, not v1.2.3"},
		"no library":       {"cmd/agrenting/go.mod", "module x\n", "requires no version of github.com/agrenting/agrenting-go, not v1.2.3"},
		"another mcptest":  {"cmd/agrenting/go.mod", strings.Replace(mod, "/mcptest v1.2.3", "/mcptest v1.2.2", 1), "requires v1.2.2 of github.com/agrenting/agrenting-go/agrentingtest/mcptest"},
		"a candidate":      {"cmd/agrenting/go.mod", strings.Replace(mod, "/sockettest v1.2.3", "/sockettest v1.2.3-rc.1", 1), "v1.2.3-rc.1 of github.com/agrenting/agrenting-go/agrentingtest/sockettest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := fstest.MapFS{}
			for file, text := range good {
				if file == c.file {
					text = c.text
				}
				files[file] = &fstest.MapFile{Data: []byte(text)}
			}
			err := errors.Join(checkSources(files, "v1.2.3")...)
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestWorkspaceReplacesEachRequiredModule(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	mod := filepath.Join(root, "cmd", "agrenting", "go.mod")
	if err := os.MkdirAll(filepath.Dir(mod), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(mod, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("module github.com/agrenting/agrenting-go/cmd/agrenting\n\nrequire (\n\tgithub.com/agrenting/agrenting-go v1.2.3\n" +
		"\tgithub.com/agrenting/agrenting-go/agrentingtest/mcptest v1.2.2 // indirect\n\texample.com/other v0.1.0\n)\n")
	got, err := workspaceOf(root)
	if err != nil {
		t.Fatal(err)
	}
	mcptest := filepath.Join(root, "agrentingtest", "mcptest")
	want := fmt.Sprintf("go 1.26.0\n\nuse %q\n"+
		"\nuse %q\n\nreplace github.com/agrenting/agrenting-go v1.2.3 => %q\n"+
		"\nuse %q\n\nreplace github.com/agrenting/agrenting-go/agrentingtest/mcptest v1.2.2 => %q\n",
		filepath.Dir(mod), root, root, mcptest, mcptest)
	if string(got) != want {
		t.Errorf("%s, want:\n%s", got, want)
	}
	write("module x\n")
	if _, err := workspaceOf(root); err == nil {
		t.Error("the program requires no library")
	}
}

func TestVersionsHaveAForm(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"1.2.3"}, {"v1.2"}, {"v01.2.3"}, {"v1.2.3+meta"}, {"v1.2.3", "v1.2.4"}, {"latest"}, {"v1.2.3 -X x=y"}} {
		if err := run(t.Context(), args); err == nil || !strings.Contains(err.Error(), "a version such as") {
			t.Errorf("%q: %v", args, err)
		}
	}
	if !versionForm.MatchString("v0.1.0-rc.1") {
		t.Error("a candidate is a version")
	}
}

func TestTheTimeOfArchivesComesFromOutside(t *testing.T) {
	t.Parallel()
	got, err := epochOf(t.Context(), ".", "1793588646")
	if err != nil || !got.Equal(at) {
		t.Error(got, err)
	}
	if _, err := epochOf(t.Context(), ".", "now"); err == nil {
		t.Error("it is not a time")
	}
	if _, err := output(t.Context(), ".", "git", "rev-parse", "HEAD"); err != nil {
		t.Skip("this is no checkout of git")
	}
	got, err = epochOf(t.Context(), ".", "")
	if err != nil || got.IsZero() {
		t.Error("that of the commit", got, err)
	}
}

func TestArchivesHaveWhatWasPutInAndNothingOfTheMachine(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for i, name := range append([]string{"bin/agrenting"}, documents...) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"top/agrenting": "bin/agrenting", "top/LICENSE": "LICENSE", "top/CHANGELOG.md": "CHANGELOG.md", "top/cli.md": "docs/cli.md",
	}
	check := func(n int, name string, mode os.FileMode, modified time.Time, r io.Reader) {
		t.Helper()
		b, err := io.ReadAll(r)
		if err != nil || want[name] != string(b) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if !modified.Equal(at) {
			t.Errorf("%s: of %s", name, modified)
		}
		if wantMode := map[bool]os.FileMode{true: 0o755, false: 0o644}[n == 0]; mode.Perm() != wantMode {
			t.Errorf("%s: %s", name, mode)
		}
	}

	b, extension, err := pack(root, filepath.Join(root, "bin/agrenting"), "top", false, at)
	if err != nil || extension != ".tar.gz" {
		t.Fatal(extension, err)
	}
	gz, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !gz.ModTime.IsZero() || gz.Name != "" {
		t.Error(gz.Header)
	}
	r, n := tar.NewReader(gz), 0
	for ; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
			t.Error(h)
		}
		check(n, h.Name, h.FileInfo().Mode(), h.ModTime, r)
	}
	if n != len(want) {
		t.Error(n, "files")
	}

	b, extension, err = pack(root, filepath.Join(root, "bin/agrenting"), "top", true, at)
	if err != nil || extension != ".zip" {
		t.Fatal(extension, err)
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(z.File) != len(want) {
		t.Fatal(len(z.File), err)
	}
	for n, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		check(n, f.Name, f.Mode(), f.Modified, r)
	}
}

// TestTheBillListsWhatAProgramIsMadeOf reads the test's own binary.
func TestTheBillListsWhatAProgramIsMadeOf(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := billOf(self, "v1.2.3", at)
	if err != nil {
		t.Fatal(err)
	}
	again, err := billOf(self, "v1.2.3", at)
	if err != nil || !bytes.Equal(b, again) {
		t.Error("the same program has another bill", err)
	}
	var got bill
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Format != "CycloneDX" || got.Spec != "1.5" || got.Metadata.Timestamp != "2026-11-02T03:04:06Z" {
		t.Error(got.Format, got.Spec, got.Metadata.Timestamp)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(got.Serial) {
		t.Error(got.Serial)
	}
	if c := got.Metadata.Component; c.Type != "application" || c.Version != "v1.2.3" || len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 64 {
		t.Errorf("%+v", c)
	}
	if len(got.Components) == 0 || got.Components[0].Name != "std" || strings.HasPrefix(got.Components[0].Version, "go") {
		t.Errorf("%+v", got.Components)
	}
	if _, err := billOf("main_test.go", "v1.2.3", at); err == nil {
		t.Error("a text is no program")
	}
}
