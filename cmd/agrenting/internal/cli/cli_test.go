package cli_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/cli"
)

// level is a type that reads its own values.
type level int

func (l *level) UnmarshalText(text []byte) error {
	if string(text) != "high" {
		return errors.New("not a level")
	}
	*l = 9
	return nil
}

type common struct {
	URL     string `name:"url" placeholder:"URL" help:"Where to send it."`
	Verbose bool   `short:"v" help:"Say more."`
}

// sendCmd has a field of each type.
type sendCmd struct {
	Force  bool          `short:"f" help:"Even if it is there."`
	Tag    []string      `help:"A tag; may be repeated."`
	Header []string      `short:"H" sep:"none" placeholder:"NAME:VALUE" help:"A header."`
	Count  int           `default:"2" help:"How often; ${default} by default."`
	Seed   *uint64       `placeholder:"A-RATHER-LONG-NUMBER" help:"A seed."`
	Filter *string       `help:"A filter that is applied to everything before it is sent."`
	Wait   time.Duration `default:"1m" help:"How long."`
	Level  level         `help:"How loud."`
	Mode   string        `enum:"fast,slow" default:"fast" help:"How. (${enum})"`
	To     string        `required:"true" help:"Who gets it."`
	FileID string        `arg:"" help:"What to send."`
	Copies []string      `arg:"" optional:"" help:"Who else gets it."`
	_      int
}

type program struct {
	common
	Send sendCmd `cmd:"" help:"Send something."`
	List struct {
		Old struct{} `cmd:"" help:"List what is old."`
		New struct {
			Since string `required:"true" help:"Since when."`
			By    string `required:"true" help:"By whom."`
		} `cmd:"" help:"List what is new."`
	} `cmd:"" help:"List things."`
	Run struct {
		Words []string `arg:"" passthrough:"" help:"The command."`
	} `cmd:"" help:"Run a command."`
	Secret struct {
		Color string `arg:"" optional:"" enum:"red,blue"`
		Shade bool   `help:"Darker."`
	} `cmd:"" hidden:"" name:"__secret" help:"Nothing to see."`
}

func parse(t *testing.T, line ...string) (got program, selected *cli.Command, help bool, err error) {
	t.Helper()
	selected, help, err = cli.New("prog", "A program.", &got).Parse(line)
	return got, selected, help, err
}

func TestParse_values(t *testing.T) {
	t.Parallel()

	seed, filter := uint64(7), ".a"
	defaults := sendCmd{Count: 2, Wait: time.Minute, Mode: "fast", To: "me", FileID: "x"}
	with := func(change func(*sendCmd)) sendCmd {
		c := defaults
		change(&c)
		return c
	}
	for line, want := range map[string]sendCmd{
		"send --to me x":                       defaults,
		"send x --to=me":                       defaults,
		"--url u send -v x --to=me":            defaults,
		"send --to me -- x":                    defaults,
		"send --to me -":                       with(func(c *sendCmd) { c.FileID = "-" }),
		"send --to me -- -x --tag":             with(func(c *sendCmd) { c.FileID = "-x"; c.Copies = []string{"--tag"} }),
		"send --to me x a,b c -f":              with(func(c *sendCmd) { c.Copies = []string{"a,b", "c"}; c.Force = true }),
		"send --to me x -vf":                   with(func(c *sendCmd) { c.Force = true }),
		"send --to me x --force=no":            defaults,
		"send --to me x --tag a,b --tag=c":     with(func(c *sendCmd) { c.Tag = []string{"a", "b", "c"} }),
		`send --to me x --tag a\,b,,c,`:        with(func(c *sendCmd) { c.Tag = []string{"a,b", "", "c"} }),
		"send --to me x -Ha,b -vH c -H -":      with(func(c *sendCmd) { c.Header = []string{"a,b", "c", "-"} }),
		"send --to me x --header=-a":           with(func(c *sendCmd) { c.Header = []string{"-a"} }),
		"send --to me x --count=-0x10":         with(func(c *sendCmd) { c.Count = -16 }),
		"send --to me x --seed 7 --filter .a":  with(func(c *sendCmd) { c.Seed, c.Filter = &seed, &filter }),
		"send --to me x --wait 3s --mode slow": with(func(c *sendCmd) { c.Wait, c.Mode = 3*time.Second, "slow" }),
		"send --to me x --level high":          with(func(c *sendCmd) { c.Level = 9 }),
		"send --to a --to me x":                defaults,
	} {
		got, selected, help, err := parse(t, strings.Fields(line)...)
		require.NoError(t, err, line)
		assert.Equal(t, want, got.Send, line)
		assert.Equal(t, "send", selected.Path(), line)
		assert.False(t, help, line)
	}
}

func TestParse_passesOtherWordsThrough(t *testing.T) {
	t.Parallel()

	for line, want := range map[string]string{
		"run ls -v --help": "ls -v --help",
		"run -v ls":        "ls",
		"run -v -v ls":     "ls",
		"run -- ls -v":     "-- ls -v",
		"run --nope=1 ls":  "--nope=1 ls",
		"run ls a,b -- -":  "ls a,b -- -",
	} {
		got, _, _, err := parse(t, strings.Fields(line)...)
		require.NoError(t, err, line)
		assert.Equal(t, want, strings.Join(got.Run.Words, " "), line)
	}
}

func TestParse_errors(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ line, selected, want string }{
		{"", "", `expected one of "send", "list", "run"`},
		{"sned", "", `unexpected argument sned, did you mean "send"?`},
		{"nothing", "", `unexpected argument nothing`},
		{"list", "list", `expected one of "old", "new"`},
		{"list old x", "list old", `unexpected argument x`},
		{"list old --to x", "list old", `unknown flag --to`},
		{"send --ur x", "send", `unknown flag --ur, did you mean one of "--url", "--to"?`},
		{"send -vx", "send", `unknown flag -x, did you mean one of "-h", "-v", "-f", "-H"?`},
		{"send -v=1", "send", `unknown flag -=, did you mean one of "-h", "-v", "-f", "-H"?`},
		{"send x", "send", `missing flags: --to=STRING`},
		{"list new", "list new", `missing flags: --by=STRING, --since=STRING`},
		{"send --to me", "send", `expected "<file-id>"`},
		{"send --to", "send", `--to: missing value, as in --to=STRING`},
		{"send --to --force x", "send", `--to: missing value; if the value is "--force", write --to="--force"`},
		{"send --wait -1s", "send", `--wait: missing value; if the value is "-1s", write --wait="-1s"`},
		{"send --tag", "send", `--tag: missing value, as in --tag=TAG,...`},
		{"send -H", "send", `--header: missing value, as in --header=NAME:VALUE`},
		{"send --force=x", "send", `--force: invalid value "x" (want true, 1, yes, false, 0, or no)`},
		{"send --count x", "send", `--count: invalid number "x" (want a 64-bit integer)`},
		{"send --seed x", "send", `--seed: invalid number "x" (want a 64-bit unsigned integer)`},
		{"send --wait x", "send", `--wait: invalid duration "x" (want one such as 30s or 5m): time: invalid duration "x"`},
		{"send --level x", "send", `--level: not a level`},
		{"send --mode x", "send", `invalid --mode "x" (want "fast", "slow")`},
		{"run", "run", `expected "<words> ..."`},
		{"__secret green", "__secret", `invalid [<color>] "green" (want "red", "blue")`},
		{"--help --nope", "", `unknown flag --nope`},
	} {
		_, selected, _, err := parse(t, strings.Fields(c.line)...)
		require.EqualError(t, err, c.want, c.line)
		assert.Equal(t, c.selected, selected.Path(), c.line)
	}
}

func TestParse_optionalEnumMayBeMissing(t *testing.T) {
	t.Parallel()

	_, _, _, err := parse(t, "__secret")
	require.NoError(t, err)
}

func TestParse_helpNeedsNothingElse(t *testing.T) {
	t.Parallel()

	for line, want := range map[string]string{"--help": "", "list -h": "list", "send --mode x --help": "send", "-h list new": "list new"} {
		_, selected, help, err := parse(t, strings.Fields(line)...)
		require.NoError(t, err, line)
		assert.True(t, help, line)
		assert.Equal(t, want, selected.Path(), line)
	}
}

func TestAllFlags_areNotShared(t *testing.T) {
	t.Parallel()

	program := cli.New("prog", "", &program{})
	program.Flags = append(make([]*cli.Value, 0, 100), program.Flags...) // room for those of commands
	first := program.Find("send").AllFlags()
	last := first[len(program.Flags)].Name
	program.Find("__secret").AllFlags()
	assert.Equal(t, last, first[len(program.Flags)].Name)
	assert.Equal(t, []string{"help", "url", "verbose"}, []string{first[0].Name, first[1].Name, first[2].Name})
}

func TestUsage(t *testing.T) {
	t.Parallel()

	p := cli.New("prog", "A program.\n\nIt has two paragraphs.", &program{})
	for file, got := range map[string]string{
		"testdata/prog.txt": p.Usage(80),
		"testdata/list.txt": p.Find("list").Usage(80),
		"testdata/send.txt": p.Find("send").Usage(60), "testdata/narrow.txt": p.Find("send").Usage(40),
	} {
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, string(want), got, file)
	}
}

func TestNew_panicsOnMistakes(t *testing.T) {
	t.Parallel()

	assert.PanicsWithValue(t, "--size has the unsupported type float64", func() {
		cli.New("prog", "", &struct{ Size float64 }{})
	})
	assert.PanicsWithValue(t, `default of --wait: invalid duration "x" (want one such as 30s or 5m): time: invalid duration "x"`, func() {
		cli.New("prog", "", &struct {
			Wait time.Duration `default:"x"`
		}{})
	})
}
