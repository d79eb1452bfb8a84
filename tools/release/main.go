// Command release builds what is published with a version: the command-line tool
// for each system, with its license, the bill of materials of each, and the
// checksums of all.
//
//	go -C tools run ./release -o ../dist v1.2.3
//	go -C tools run ./release -verify v1.2.3
//
// The same commit and the same Go give the same bytes, wherever and whenever they
// are built; -verify holds it to that. See docs/releasing.md.
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	module  = "github.com/agrenting/agrenting-go"
	program = "agrenting"
	folder  = "cmd/agrenting"
)

// documents go into every archive, from the root of the repository.
var documents = []string{"LICENSE", "CHANGELOG.md", "docs/cli.md"}

const defaultTargets = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stopped above
	}
}

// release is one set of files to be made.
type release struct {
	root    string // of the sources
	out     string
	version string // with its v
	targets []string
	epoch   time.Time // of everything in an archive
	cache   string    // GOCACHE; the usual one if empty
}

var versionForm = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	var r release
	targets := flags.String("targets", defaultTargets, "systems to build for")
	flags.StringVar(&r.out, "o", "dist", "folder for the files; made anew")
	flags.StringVar(&r.root, "root", "", "root of the sources; that of the git repository if empty")
	verify := flags.Bool("verify", false, "build twice in different folders, once with an empty cache for this system, and compare; keeps nothing")
	dirty := flags.Bool("dirty", false, "build from what is not committed, and for any version")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || !versionForm.MatchString(flags.Arg(0)) {
		return errors.New("one argument is wanted, a version such as v1.2.3")
	}
	r.version, r.targets = flags.Arg(0), strings.Split(*targets, ",")
	var err error
	if r.root == "" {
		if r.root, err = output(ctx, ".", "git", "rev-parse", "--show-toplevel"); err != nil {
			return err
		}
	}
	if r.root, err = filepath.Abs(r.root); err != nil {
		return err
	}
	if r.epoch, err = epochOf(ctx, r.root, os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	if !*dirty {
		if err := r.check(ctx); err != nil {
			return err
		}
	}
	if *verify {
		return r.verify(ctx)
	}
	sums, err := r.make(ctx)
	if err != nil {
		return err
	}
	fmt.Print(sums)
	return nil
}

// epochOf is the time that files in archives have: what the environment says, or
// that of the commit.
func epochOf(ctx context.Context, root, variable string) (time.Time, error) {
	if variable == "" {
		var err error
		if variable, err = output(ctx, root, "git", "log", "-1", "--format=%ct"); err != nil {
			return time.Time{}, err
		}
	}
	seconds, err := strconv.ParseInt(variable, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is %q, and has to be seconds since 1970", variable)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// check refuses to release what cannot be released.
func (r *release) check(ctx context.Context) error {
	var problems []error
	if changed, err := output(ctx, r.root, "git", "status", "--porcelain"); err != nil || changed != "" {
		problems = append(problems, errors.Join(errors.New("there are changes that are not committed"), err))
	}
	if tags, err := output(ctx, r.root, "git", "tag", "--points-at", "HEAD"); err != nil || !slices.Contains(strings.Fields(tags), r.version) {
		problems = append(problems, errors.Join(fmt.Errorf("this commit is not tagged %s", r.version), err))
	}
	return errors.Join(append(problems, checkSources(os.DirFS(r.root), r.version)...)...)
}

var versionConstant = regexp.MustCompile(`(?m)^const Version = "([^"]*)"$`)

// checkSources looks for what does not go with a version.
func checkSources(sources fs.FS, version string) (problems []error) {
	text := func(name string) string {
		b, err := fs.ReadFile(sources, name)
		if err != nil {
			problems = append(problems, err)
		}
		return string(b)
	}
	plain := strings.TrimPrefix(version, "v")
	if m := versionConstant.FindStringSubmatch(text("version.go")); m == nil || m[1] != plain {
		problems = append(problems, fmt.Errorf("the constant Version of version.go is not %q", plain))
	}
	if !regexp.MustCompile(`(?m)^## \[?` + regexp.QuoteMeta(plain) + `\b`).MatchString(text("CHANGELOG.md")) {
		problems = append(problems, fmt.Errorf("CHANGELOG.md has no section %s", plain))
	}
	mod := text(folder + "/go.mod")
	if regexp.MustCompile(`(?m)^replace\b`).MatchString(mod) {
		problems = append(problems, fmt.Errorf("%s/go.mod has a replace line, and go install refuses programs with one", folder))
	}
	required := requirements(mod)
	required[module] = cmp.Or(required[module], "no version")
	for _, path := range slices.Sorted(maps.Keys(required)) {
		if required[path] != version {
			problems = append(problems, fmt.Errorf("%s/go.mod requires %s of %s, not %s", folder, required[path], path, version))
		}
	}
	return problems
}

// make builds everything, and returns the checksums.
func (r *release) make(ctx context.Context) (string, error) {
	if err := os.RemoveAll(r.out); err != nil {
		return "", err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil { // #nosec G301 -- published files
		return "", err
	}
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	workspace, err := workspaceOf(r.root)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(work, "go.work"), workspace, 0o644); err != nil { // #nosec G306 -- published files
		return "", err
	}
	sums := map[string][sha256.Size]byte{}
	put := func(name string, content []byte) error {
		sums[name] = sha256.Sum256(content)
		return os.WriteFile(filepath.Join(r.out, name), content, 0o644) // #nosec G306 -- published files
	}
	for _, target := range r.targets {
		goos, goarch, ok := strings.Cut(target, "/")
		if !ok {
			return "", fmt.Errorf("%q is not a system such as linux/amd64", target)
		}
		binary := filepath.Join(work, goos+"_"+goarch, program)
		if goos == "windows" {
			binary += ".exe"
		}
		if err := r.build(ctx, filepath.Join(work, "go.work"), goos, goarch, binary); err != nil {
			return "", err
		}
		name := fmt.Sprintf("%s_%s_%s_%s", program, r.version, goos, goarch)
		bom, err := billOf(binary, r.version, r.epoch)
		if err != nil {
			return "", err
		}
		if err := put(name+".cdx.json", bom); err != nil {
			return "", err
		}
		archive, extension, err := pack(r.root, binary, name, goos == "windows", r.epoch)
		if err != nil {
			return "", err
		}
		if err := put(name+extension, archive); err != nil {
			return "", err
		}
	}
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		fmt.Fprintf(&list, "%x  %s\n", sums[name], name)
	}
	return list.String(), os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(list.String()), 0o644) // #nosec G306 -- published files
}

// workspaceOf returns a go.work of the program and the modules of this repository that it
// requires: any other module would raise the versions of what is linked. The versions that
// the program requires may not be published yet, so they are replaced. The modules are also
// in use, since a program has the folders of what is only replaced in it.
func workspaceOf(root string) ([]byte, error) {
	mod, err := os.ReadFile(filepath.Join(root, folder, "go.mod")) // #nosec G304 -- a file of this project
	if err != nil {
		return nil, err
	}
	required := requirements(string(mod))
	if required[module] == "" {
		return nil, fmt.Errorf("%s/go.mod does not require %s", folder, module)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "go 1.26.0\n\nuse %q\n", filepath.Join(root, folder))
	for _, path := range slices.Sorted(maps.Keys(required)) {
		dir := filepath.Join(root, strings.TrimPrefix(path, module))
		fmt.Fprintf(&b, "\nuse %q\n\nreplace %s %s => %q\n", dir, path, required[path], dir)
	}
	return b.Bytes(), nil
}

var requirement = regexp.MustCompile(`(?m)^(?:require)?[ \t]+(` + regexp.QuoteMeta(module) + `(?:/\S+)?) (v\S+)`)

// requirements returns the modules of this repository that a go.mod requires, with their
// versions.
func requirements(mod string) map[string]string {
	required := make(map[string]string)
	for _, m := range requirement.FindAllStringSubmatch(mod, -1) {
		required[m[1]] = m[2]
	}
	return required
}

// build makes one program. The settings that would change it are given, whatever
// the environment says.
func (r *release) build(ctx context.Context, workspace, goos, goarch, binary string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", // #nosec G204 -- the go command
		"-ldflags=-s -w -buildid= -X main.version="+r.version, "-o", binary, ".")
	cmd.Dir = filepath.Join(r.root, folder)
	cmd.Env = append(os.Environ(), "GOWORK="+workspace, "GOFLAGS=", "CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch,
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off")
	if r.cache != "" {
		cmd.Env = append(cmd.Env, "GOCACHE="+r.cache)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building for %s/%s: %w", goos, goarch, err)
	}
	if err := checkSize(binary, maxSize); err != nil {
		return err
	}
	if goos != runtime.GOOS || goarch != runtime.GOARCH {
		return nil
	}
	// What can be run here has to know which version it is.
	says, err := output(ctx, ".", binary, "version")
	if err != nil {
		return err
	}
	if want := program + " " + strings.TrimPrefix(r.version, "v") + " ("; !strings.HasPrefix(says, want) {
		return fmt.Errorf("the program says %q, which does not begin with %q", says, want)
	}
	return checkStart(ctx, binary, maxStart)
}

// verify builds from two copies of the sources and compares. An empty cache is
// expensive, so only the second build for this system has one: an object from
// the cache of the first would prove nothing about the compiler.
func (r *release) verify(ctx context.Context) error {
	tmp, err := os.MkdirTemp("", "verify")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var sums [2]string
	for i, place := range []string{"a", "somewhere/else/with a much longer path"} {
		copied := *r
		copied.root, copied.out = filepath.Join(tmp, place, "src"), filepath.Join(tmp, place, "dist")
		// The tree may change meanwhile, so the second is a copy of the first.
		if i == 0 {
			err = copySources(ctx, r.root, copied.root)
		} else {
			err = os.CopyFS(copied.root, os.DirFS(filepath.Join(tmp, "a", "src")))
		}
		if err != nil {
			return err
		}
		if sums[i], err = copied.make(ctx); err != nil {
			return err
		}
	}
	fmt.Print(sums[0])
	if sums[0] != sums[1] {
		return fmt.Errorf("the same sources gave other files in another folder:\n%s", sums[1])
	}
	host := runtime.GOOS + "/" + runtime.GOARCH
	if !slices.Contains(r.targets, host) {
		return nil
	}
	fresh := *r
	fresh.root, fresh.out = filepath.Join(tmp, "a", "src"), filepath.Join(tmp, "fresh")
	fresh.targets, fresh.cache = []string{host}, filepath.Join(tmp, "cache")
	again, err := fresh.make(ctx)
	if err != nil {
		return err
	}
	for line := range strings.Lines(again) {
		if !strings.Contains(sums[0], line) {
			return fmt.Errorf("the same sources gave another file with an empty cache: %s", line)
		}
	}
	fmt.Printf("the same in two folders, and for %s with an empty cache\n", host)
	return nil
}

// copySources copies what git would, committed or not. What vanishes meanwhile
// is left out.
func copySources(ctx context.Context, from, to string) error {
	list, err := output(ctx, from, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(list, "\x00"), "\x00") {
		info, err := os.Lstat(filepath.Join(from, name))
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, name)) // #nosec G304 -- a file of this project
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // #nosec G301 -- published files
			return err
		}
		if err := os.WriteFile(path, b, info.Mode().Perm()); err != nil { // #nosec G703 -- a file of this project
			return err
		}
	}
	return nil
}

func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...) // #nosec G204 -- commands of this program
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
