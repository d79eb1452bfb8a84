package main

import (
	"embed"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/cli"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// The scripts call the program for the candidates, so that they are never outdated.
//
//go:embed completions
var completionScripts embed.FS

// Run prints a script for the source command: source <(agrenting completion bash).
func (c *completionCmd) Run(a *app) error {
	script, err := completionScripts.ReadFile("completions/agrenting." + c.Shell)
	if err != nil {
		return err
	}
	_, err = a.out.Write(script)
	return err
}

type completeCmd struct {
	Describe bool     `help:"Add descriptions after tabs, and name what the shell must complete itself."`
	Words    []string `arg:"" optional:"" passthrough:"" help:"The words so far; the last one is being completed."`
}

// Kinds of words that the shell completes itself.
const (
	completeFiles    = ":files"
	completeFolders  = ":folders"
	completeCommands = ":commands"
)

// Run prints candidates for the last word, one per line. For --flag=value, these are
// candidates for the value.
func (c *completeCmd) Run(a *app) error { //nolint:unparam // every command has this method
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, w := range candidates(a.program, words) {
		switch {
		case c.Describe && w.description != "":
			a.ui.line("%s\t%s", w.text, w.description)
		case c.Describe || !strings.HasPrefix(w.text, ":"):
			a.ui.line("%s", w.text)
		}
	}
	return nil
}

// candidate is a possible completion of a word.
type candidate struct{ text, description string }

// described returns a candidate with the first sentence of its help.
func described(text, help string) candidate {
	help = strings.Join(strings.Fields(help), " ")
	first, _, _ := strings.Cut(help, ". ")
	return candidate{text, strings.TrimSuffix(first, ".")}
}

// candidates are the possible completions of the last word.
func candidates(command *cli.Command, words []string) []candidate {
	last := ""
	if len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	var pending *cli.Value // a flag that waits for its value
	helping := false       // the words after help are names of commands
	positional := 0
	for i, w := range words {
		switch {
		case pending != nil:
			pending = nil
		case w == "--":
			return commandLine(command, len(words)-i-1)
		case strings.HasPrefix(w, "-") && positional == 0, strings.HasPrefix(w, "-") && command.Name != "exec":
			pending = flagOf(command, w)
		default:
			switch child := command.Find(w); {
			case child == nil:
				positional++
			case child.Name == "help" && !helping:
				helping = true
			default:
				command = child
			}
		}
	}
	var all []candidate
	name, value, valued := strings.Cut(last, "=")
	flag := flagOf(command, name)
	switch {
	case pending != nil:
		all = values(pending)
	case valued && strings.HasPrefix(last, "--"):
		if flag == nil {
			return nil
		}
		all, last = values(flag), value
	case command.Name == "exec" && !helping && (positional > 0 || !strings.HasPrefix(last, "-")):
		return commandLine(command, positional)
	case strings.HasPrefix(last, "-"):
		for _, f := range command.AllFlags() {
			all = append(all, described("--"+f.Name, f.Help))
		}
	case len(command.Commands) > 0:
		for _, child := range command.Commands {
			if !child.Hidden {
				all = append(all, described(child.Name, child.Help))
			}
		}
	case helping || positional > 0:
	case command.Name == "request":
		all = plain("DELETE", "GET", "PATCH", "POST", "PUT")
	case len(command.Args) > 0:
		all = plain(command.Args[0].Enum...)
	}
	all = slices.DeleteFunc(all, func(c candidate) bool {
		return c.text == "" || !strings.HasPrefix(c.text, last) && !strings.HasPrefix(c.text, ":")
	})
	slices.SortFunc(all, func(x, y candidate) int { return strings.Compare(x.text, y.text) })
	return slices.CompactFunc(all, func(x, y candidate) bool { return x.text == y.text })
}

// commandLine returns candidates for a word of the command that exec runs. before is the number
// of words before the last one.
func commandLine(command *cli.Command, before int) []candidate {
	switch {
	case command.Name != "exec":
		return nil
	case before == 0:
		return plain(completeCommands)
	default:
		return plain(completeFiles)
	}
}

// values are the candidates for the value of a flag.
func values(f *cli.Value) []candidate {
	switch {
	case f.Name == "env":
		return plain("production", "sandbox")
	case f.Name == "type":
		return plain("api_key", "session", "user_token")
	case f.Placeholder == "FILE":
		return plain(completeFiles)
	case f.Placeholder == "FOLDER":
		return plain(completeFolders)
	default:
		return plain(f.Enum...)
	}
}

// plain returns candidates without a description.
func plain(texts ...string) []candidate {
	all := make([]candidate, 0, len(texts))
	for _, text := range texts {
		all = append(all, candidate{text: text})
	}
	return all
}

// flagOf returns the flag that a word names, if the next word is its value.
func flagOf(command *cli.Command, word string) *cli.Value {
	if strings.Contains(word, "=") {
		return nil
	}
	for _, f := range command.AllFlags() {
		if (word == "--"+f.Name || (f.Short != "" && word == "-"+f.Short)) && !f.IsBool() {
			return f
		}
	}
	return nil
}
