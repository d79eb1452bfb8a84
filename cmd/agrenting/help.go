package main

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
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
	"sandbox": {"help", "json", "verbose"}, "version": {"help", "json"}, "completion": {"help"}, "help": {"help"},
}

// printHelp shows what a command is for, without the flags that do nothing there.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if sel := ctx.Selected(); sel != nil {
		if used, ok := globalsOf[sel.Name]; ok && sel.Parent == ctx.Model.Node {
			for _, f := range ctx.Model.Flags {
				f.Hidden = f.Hidden || !slices.Contains(used, f.Name)
			}
		}
	}
	return kong.DefaultHelpPrinter(options, ctx)
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
