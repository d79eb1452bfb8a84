//go:build unix

package agrenting_test

import (
	"context"
	"flag"
	"fmt"
	"html"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guidesWithCommands are run as a reader would: in a fresh copy of the checkout,
// one block after the other.
//
// A block of sh is run, and the block of text behind it is what it shows. A block
// with --env-file in it, and no & to put it into the background, belongs into
// another terminal; that file is waited for. A comment <!-- file: name --> says that the
// block after it must be saved under that name.
var guidesWithCommands = []string{
	"docs/getting-started.md", "docs/sandbox.md", "docs/migrating.md",
}

var updateGuides = flag.Bool("update-guides", false, "write what the commands of the guides have shown into the guides")

// block is a fenced part of a document.
type block struct {
	kind       string // the info string
	file       string // to save it as
	text       string
	begin, end int // lines of its content
}

func blocksOf(t *testing.T, document string) (blocks []block, lines []string) {
	t.Helper()
	b, err := os.ReadFile(document)
	require.NoError(t, err)
	lines = strings.Split(string(b), "\n")
	file, open := "", -1
	var current block
	for i, line := range lines {
		fence, kind, _ := strings.Cut(strings.TrimSpace(line), "```")
		switch {
		case open < 0 && fence == "" && strings.HasPrefix(strings.TrimSpace(line), "```"):
			current, open, file = block{kind: kind, file: file, begin: i + 1}, i, ""
		case open >= 0 && strings.TrimSpace(line) == "```":
			current.end = i
			current.text = strings.Join(lines[current.begin:i], "\n") + "\n"
			blocks, open = append(blocks, current), -1
		case open < 0:
			if m := regexp.MustCompile(`^<!-- file: (\S+) -->$`).FindStringSubmatch(line); m != nil {
				file = m[1]
			}
		}
	}
	require.Negative(t, open, "%s ends within a block", document)
	return blocks, lines
}

// TestCommandsInGuidesPrintDocumentedOutput runs every command, so that a
// newcomer's first hour is a test.
func TestCommandsInGuidesPrintDocumentedOutput(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds and runs the command-line tool")
	}
	for _, guide := range guidesWithCommands {
		t.Run(guide, func(t *testing.T) {
			t.Parallel()
			blocks, lines := blocksOf(t, guide)
			shown := runGuide(t, blocks)
			for i := len(blocks) - 1; i > 0; i-- {
				out, ran := shown[i-1]
				if !ran || blocks[i].kind != "text" {
					continue
				}
				want, got := timeless(blocks[i].text), timeless(out)
				if *updateGuides && want != got {
					out = secretShown.ReplaceAllString(strings.TrimRight(out, "\n"), "${1}…")
					tail := append(strings.Split(out, "\n"), lines[blocks[i].end:]...)
					lines = append(lines[:blocks[i].begin:blocks[i].begin], tail...)
					continue
				}
				assert.Equal(t, want, got, "%s:%d; -update-guides writes what it is now", guide, blocks[i].begin+1)
			}
			if *updateGuides {
				require.NoError(t, os.WriteFile(guide, []byte(strings.Join(lines, "\n")), 0o644))
			}
		})
	}
}

// TestPictureShowsTheQuickstart compares the picture with the program.
func TestPictureShowsTheQuickstart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds and runs an example")
	}
	svg, err := os.ReadFile("docs/img/quickstart.svg")
	require.NoError(t, err)
	var drawn []string
	for _, m := range regexp.MustCompile(`<text [^/>]*>.*?</text>`).FindAllString(string(svg), -1) {
		text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(m, ""))
		drawn = append(drawn, timeless(text))
	}
	var shown []string
	out, err := bash(t, ".", "go run ./examples/quickstart")
	require.NoError(t, err, "%s", out)
	for line := range strings.Lines(out) {
		if line = timeless(line); line != "" {
			shown = append(shown, line)
		}
	}
	assert.Equal(t, shown, drawn, "run \"make picture\"")
}

// runGuide returns what the commands have shown, by the index of their blocks.
func runGuide(t *testing.T, blocks []block) map[int]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "agrenting-go")
	copyTree(t, ".", dir)
	var script strings.Builder
	script.WriteString("set -e\n") // a command that may fail says so: … || echo "exit code $?"
	mark := func(i int) string { return fmt.Sprintf("=== end of block %d", i) }
	for i, b := range blocks {
		switch {
		case b.file != "":
			fmt.Fprintf(&script, "mkdir -p %q\ncat > %q <<'END OF FILE'\n%sEND OF FILE\n", filepath.Dir(b.file), b.file, b.text)
		case b.kind != "sh":
		case strings.Contains(b.text, "--env-file ") && !strings.Contains(b.text, "&"):
			_, rest, _ := strings.Cut(b.text, "--env-file ")
			env := strings.Fields(rest)[0]
			fmt.Fprintf(&script, "( %s ) > first-terminal.log 2>&1 &\nuntil [ -e %q ]; do kill -0 $!; sleep 0.1; done\n", strings.TrimSpace(b.text), env)
			fmt.Fprintf(&script, "cat first-terminal.log\necho %q\n", mark(i))
		default:
			fmt.Fprintf(&script, "%s\necho %q\n", strings.TrimSpace(b.text), mark(i))
		}
	}
	out, err := bash(t, dir, script.String())
	require.NoError(t, err, "%s", out)
	shown := map[int]string{}
	for i, b := range blocks {
		if b.kind != "sh" || b.file != "" {
			continue
		}
		before, after, found := strings.Cut(out, mark(i)+"\n")
		require.True(t, found, "no end of the block in line %d:\n%s", b.begin, out)
		shown[i], out = before, after
	}
	return shown
}

// bash runs a script with nothing of the SDK in its environment, and ends what it
// has left running.
func bash(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	for _, v := range cmd.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name != "GOWORK" && name != "GOFLAGS" && !strings.HasPrefix(name, "AGRENTING_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// Without paths in what is compiled, the copies of the checkout share it.
	cmd.Env = append(cmd.Env, "GOFLAGS=-trimpath")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	end := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = end
	log, err := os.Create(filepath.Join(t.TempDir(), "out"))
	require.NoError(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log // a file, so that nothing waits for what stays in the background
	require.NoError(t, cmd.Start())
	err = cmd.Wait()
	_ = end() // the first terminal
	out, readErr := os.ReadFile(log.Name())
	require.NoError(t, readErr)
	return string(out), err
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, path), 0o755)
		case !d.Type().IsRegular() || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(d.Name(), ".env"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, path), b, 0o644)
	}))
}

// secretShown finds secrets of the embedded platform. They are worth nothing, but
// documents need not look as if they had some.
var secretShown = regexp.MustCompile(`([0-9a-f]{4})[0-9a-f]{36}`)

// variable is what is another thing each time.
var variable = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`sha256:[0-9a-f]{10}`), "FINGERPRINT"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`req_[0-9a-f]{16}`), "REQUEST"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b[0-9a-f]{8}…`), "ID"},
	{regexp.MustCompile(`[0-9a-f]{40}|[0-9a-f]{4}…`), "SECRET"},
	{regexp.MustCompile(`/\S*/tmp\.[A-Za-z0-9]+`), "FOLDER"}, // of mktemp
	{regexp.MustCompile(`(did:agrenting:[a-z]+-)[0-9a-f]{8}`), "${1}ID"},
	{regexp.MustCompile(`\b(\d+(\.\d+)?(ms|s)|\d+ (ms|s))\b`), "DURATION"},
	{regexp.MustCompile(`\b\d+ of (\d+) requests`), "SOME of ${1} requests"},
	{regexp.MustCompile(`\b[0-9a-f]{4}\b`), "HINT"},
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

// timeless is what two runs have in common.
func timeless(text string) string {
	for _, v := range variable {
		text = v.re.ReplaceAllString(text, v.by)
	}
	return strings.TrimSpace(text)
}
