package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/term"
)

type helpCmd struct {
	Topic []string `arg:"" optional:"" help:"The command, such as keys rotate."`
}

// Run shows what --help shows.
func (c *helpCmd) Run(a *app) error {
	node := a.parser.Model.Node
	for i, word := range c.Topic {
		next := childOf(node, word)
		if next == nil {
			hint := "see agrenting " + strings.Join(append(c.Topic[:i:i], "--help"), " ")
			return usage(hint, "there is no command %s", discreet(visible(strings.Join(c.Topic[:i+1], " "))))
		}
		node = next
	}
	_, err := a.parser.Parse(append([]string{"--help"}, c.Topic...)) // does not return
	return err
}

// globalsOf are the flags of every command that mean something to commands that
// ask no platform. All others take all of them.
var globalsOf = map[string][]string{
	"sandbox": {"help", "json", "jq", "verbose"}, "version": {"help", "json", "jq"}, "completion": {"help"}, "help": {"help"},
}

// printHelp shows what a command is for: its own flags, examples, and the common flags
// that mean something to it, in short.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	widen(ctx.Stdout)
	sel := ctx.Selected()
	if sel == nil {
		return kong.DefaultHelpPrinter(options, ctx)
	}
	used, few := globalsOf[sel.Name]
	few = few && sel.Parent == ctx.Model.Node
	var common []string
	for _, f := range ctx.Model.Flags {
		if !f.Hidden && (!few || slices.Contains(used, f.Name)) {
			common = append(common, flagInShort(f))
		}
		f.Hidden = true
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	if list := examples[sel.Path()]; len(list) > 0 {
		fmt.Fprintf(ctx.Stdout, "\nExamples:\n  %s\n", strings.Join(list, "\n  "))
	}
	fmt.Fprintf(ctx.Stdout, "\nCommon flags (see agrenting --help):\n%s", wrapped(common, columnsOf(ctx.Stdout)))
	return nil
}

// flagInShort returns a flag with its short form and the name of its value, such as
// -v/--verbose or --url=URL.
func flagInShort(f *kong.Flag) string {
	text := "--" + f.Name
	if f.Short != 0 {
		text = "-" + string(f.Short) + "/" + text
	}
	if !f.IsBool() {
		text += "=" + strings.Trim(f.FormatPlaceHolder(), `"`)
	}
	return text
}

// wrapped joins words to indented lines.
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

// columnsOf returns how many columns help has: those of COLUMNS or of the terminal, else 80.
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

// widen tells kong how wide the terminal is. Kong sees that only of a file.
func widen(w io.Writer) {
	if isTerminal(w) && os.Getenv("COLUMNS") == "" {
		_ = os.Setenv("COLUMNS", strconv.Itoa(columnsOf(w)))
	}
}

// childOf is the command that a word behind another names.
func childOf(node *kong.Node, word string) *kong.Node {
	for _, child := range node.Children {
		if child.Name == word {
			return child
		}
	}
	return nil
}
