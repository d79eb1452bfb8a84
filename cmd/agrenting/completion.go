package main

import (
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// The scripts ask the program itself, so that they never grow old.
var completionScripts = map[string]string{
	"bash": `_agrenting() {
	local IFS=$'\n'
	if [[ "${COMP_WORDS[COMP_CWORD-1]}" == --store ]]; then
		compopt -o filenames 2>/dev/null
		COMPREPLY=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}"))
		return
	fi
	COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o bashdefault -o default -F _agrenting agrenting
`,
	"zsh": `#compdef agrenting
_agrenting() {
	local -a candidates
	if [[ "${words[CURRENT-1]}" == --store ]]; then
		_files -/
		return
	fi
	candidates=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,$CURRENT]}" 2>/dev/null)}")
	if [[ -n "${candidates[1]}" ]]; then
		compadd -- "${candidates[@]}"
	else
		_files
	fi
}
compdef _agrenting agrenting
`,
	"fish": `function __agrenting_complete
	set -l words (commandline -opc) (commandline -ct)
	agrenting __complete -- $words[2..-1] 2>/dev/null
end
complete -c agrenting -a '(__agrenting_complete)'
complete -c agrenting -l store -x -a '(__fish_complete_directories)'
`,
}

// Run prints a script, to be sourced: source <(agrenting completion bash).
func (c *completionCmd) Run(a *app) error {
	_, err := io.WriteString(a.out, completionScripts[c.Shell])
	return err
}

type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:"" help:"The words so far; the last one is being completed."`
}

// Run prints candidates for the last word, one a line; none means files. The
// scripts complete the folder of --store themselves.
func (c *completeCmd) Run(a *app) error { //nolint:unparam // kong requires it
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, w := range candidates(a.parser.Model.Node, words) {
		a.ui.line("%s", w)
	}
	return nil
}

// candidates are the possible completions of the last word.
func candidates(node *kong.Node, words []string) []string {
	last := ""
	if len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	var pending *kong.Flag // a flag that waits for its value
	helping := false       // the words behind help are those of the other commands
	for _, w := range words {
		if w == "--" {
			return nil
		}
		if pending != nil {
			pending = nil
			continue
		}
		if strings.HasPrefix(w, "-") {
			pending = flagOf(node, w)
			continue
		}
		switch child := childOf(node, w); {
		case child == nil:
		case child.Name == "help" && !helping:
			helping = true
		default:
			node = child
		}
	}
	var all []string
	switch {
	case pending != nil:
		all = pending.EnumSlice()
		if pending.Name == "env" {
			all = []string{"production", "sandbox"}
		}
	case strings.HasPrefix(last, "-"):
		for _, group := range node.AllFlags(true) {
			for _, f := range group {
				all = append(all, "--"+f.Name)
			}
		}
	default:
		for _, child := range node.Children {
			if !child.Hidden {
				all = append(all, child.Name)
			}
		}
		if len(node.Children) == 0 && len(node.Positional) > 0 && !helping {
			all = node.Positional[0].EnumSlice()
		}
		if node.Name == "request" && len(all) == 0 && !helping {
			all = []string{"DELETE", "GET", "PATCH", "POST", "PUT"}
		}
	}
	all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, last) || s == "" })
	slices.Sort(all)
	return slices.Compact(all)
}

// flagOf is the flag that a word names, if it takes a value that is still to
// come.
func flagOf(node *kong.Node, word string) *kong.Flag {
	if strings.Contains(word, "=") {
		return nil
	}
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if (word == "--"+f.Name || (f.Short != 0 && word == "-"+string(f.Short))) && !f.IsBool() {
				return f
			}
		}
	}
	return nil
}
