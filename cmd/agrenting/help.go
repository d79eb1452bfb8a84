package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/cli"
)

type helpCmd struct {
	Topic []string `arg:"" optional:"" help:"The command, such as keys rotate."`
}

// Run shows what --help shows.
func (c *helpCmd) Run(a *app) error {
	command := a.program
	for i, word := range c.Topic {
		command = command.Find(word)
		if command == nil {
			hint := "see agrenting " + strings.Join(append(c.Topic[:i:i], "--help"), " ")
			return usage(hint, "there is no command %s", discreet(visible(strings.Join(c.Topic[:i+1], " "))))
		}
	}
	a.printHelp(command)
	return nil
}

// globalsOf has the common flags that have an effect on commands that do not call the platform.
// Other commands accept all common flags.
var globalsOf = map[string][]string{
	"sandbox": {"help", "json", "jq", "verbose"}, "version": {"help", "json", "jq"}, "completion": {"help"}, "help": {"help"},
}

// printHelp prints the help of a command: its own flags, examples, and a short list of the
// common flags that have an effect on it.
func (a *app) printHelp(c *cli.Command) {
	width := columnsOf(a.out)
	fmt.Fprint(a.out, c.Usage(width))
	if c == a.program {
		return
	}
	if list := examples[c.Path()]; len(list) > 0 {
		fmt.Fprintf(a.out, "\nExamples:\n  %s\n", strings.Join(list, "\n  "))
	}
	used, few := globalsOf[c.Path()]
	var common []string
	for _, f := range a.program.Flags {
		if !few || slices.Contains(used, f.Name) {
			common = append(common, flagInShort(f))
		}
	}
	fmt.Fprintf(a.out, "\nCommon flags (see agrenting --help):\n%s", wrapped(common, width))
}

// flagInShort returns a flag with its letter and the name of its value, such as
// -v/--verbose or --url=URL.
func flagInShort(f *cli.Value) string {
	text := "--" + f.Name
	if f.Short != "" {
		text = "-" + f.Short + "/" + text
	}
	if !f.IsBool() {
		text += "=" + strings.Trim(f.Metavar(), `"`)
	}
	return text
}

// wrapped joins words into indented lines.
func wrapped(words []string, width int) string {
	var b strings.Builder
	line := " "
	for _, w := range words {
		if len(line)+1+len(w) > width && line != " " {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + w
	}
	b.WriteString(line + "\n")
	return b.String()
}

// maxColumns bounds the width of help, so that lines on wide terminals stay readable.
const maxColumns = 120

// columnsOf returns the number of columns of help: from COLUMNS, else from the terminal, else 80.
func columnsOf(w io.Writer) int {
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return min(n, maxColumns)
	}
	if f, ok := underlying(w); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return min(n, maxColumns)
		}
	}
	return 80
}
