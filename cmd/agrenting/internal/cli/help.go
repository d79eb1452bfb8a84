package cli

import (
	"fmt"
	"go/doc/comment"
	"slices"
	"strings"
)

// Usage returns what --help shows of a command: its usage line, its description, its
// arguments, its flags without those of the program, and its subcommands. Lines have at most
// width columns, where that is possible.
func (c *Command) Usage(width int) string {
	var b strings.Builder
	name, flags := c.program().Name, c.Flags
	if c.Parent != nil {
		name, flags = name+" "+c.Path(), c.AllFlags()[len(c.program().Flags):]
	}
	fmt.Fprintf(&b, "Usage: %s\n", strings.TrimSpace(name+" "+c.summary()))
	if c.Help != "" {
		b.WriteString("\n" + strings.Join(wrap(strings.TrimSpace(c.Help), width), "\n") + "\n")
	}
	table(&b, "Arguments:", argumentRows(c.Args), width)
	table(&b, "Flags:", flagRows(flags), width)
	var commands [][2]string
	for _, leaf := range c.Leaves() {
		commands = append(commands, [2]string{leaf.Path(), leaf.Help})
	}
	table(&b, "Commands:", commands, width)
	if c.Parent == nil && len(commands) > 0 {
		more := fmt.Sprintf("Run \"%s <command> --help\" for more information on a command.", c.Name)
		b.WriteString("\n" + strings.Join(wrap(more, width), "\n") + "\n")
	}
	return b.String()
}

func (c *Command) program() *Command {
	for c.Parent != nil {
		c = c.Parent
	}
	return c
}

// summary returns what the usage line shows after the names of the commands.
func (c *Command) summary() string {
	var parts []string
	for _, f := range c.AllFlags() {
		if f.Required {
			parts = append(parts, f.Summary())
		}
	}
	optional := 0
	for _, arg := range c.Args {
		text := arg.Summary()
		if !arg.Required {
			text = strings.TrimSuffix(text, "]")
			optional++
		}
		parts = append(parts, text)
	}
	switch {
	case len(c.Args) > 0:
		parts[len(parts)-1] += strings.Repeat("]", optional)
	case len(c.Commands) > 0:
		parts = append(parts, "<command>")
	}
	own := c.Flags
	if c.Parent != nil {
		own = slices.Concat(c.Parent.Flags, c.Flags)
	}
	if slices.ContainsFunc(own, func(f *Value) bool { return !f.Required && f.Name != "help" }) {
		parts = append(parts, "[flags]")
	}
	return strings.Join(parts, " ")
}

func argumentRows(args []*Value) [][2]string {
	var rows [][2]string
	for _, arg := range args {
		rows = append(rows, [2]string{arg.Summary(), arg.Help})
	}
	return rows
}

func flagRows(flags []*Value) [][2]string {
	indent := ""
	for _, f := range flags {
		if f.Short != "" {
			indent = "    "
		}
	}
	var rows [][2]string
	for _, f := range flags {
		short := indent
		if f.Short != "" {
			short = "-" + f.Short + ", "
		}
		rows = append(rows, [2]string{short + f.Summary(), f.Help})
	}
	return rows
}

// narrow is the width below which the right column of a table is under the left one instead.
const narrow = 30

// table writes a heading and rows in two columns. A left cell that is too wide for its
// column, and every one in a narrow table, is on a separate line.
func table(b *strings.Builder, title string, rows [][2]string, width int) {
	if len(rows) == 0 {
		return
	}
	const indent, gap = 2, 4
	width -= indent
	widest, left := max(30, 375*width/1000), 0
	for _, row := range rows {
		if n := len(row[0]); n < widest {
			left = max(left, n)
		}
	}
	if width-left-gap < narrow {
		widest, left = 0, 2
	}
	b.WriteString("\n" + title + "\n")
	for _, row := range rows {
		cell := row[0]
		if len(cell) >= widest {
			b.WriteString(strings.Repeat(" ", indent) + cell + "\n")
			cell = ""
		}
		for _, line := range wrap(row[1], width-left-gap) {
			line = fmt.Sprintf("%*s%-*s%*s%s", indent, "", left, cell, gap, "", line)
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			cell = ""
		}
	}
}

// wrap splits text into lines of at most width columns, where words are not longer. An empty
// line separates paragraphs.
func wrap(text string, width int) []string {
	printer := comment.Printer{TextCodePrefix: "    ", TextWidth: max(width, 1)} // 0 would mean 80
	out := printer.Text(new(comment.Parser).Parse(text))
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
}
