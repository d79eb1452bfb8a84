package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// errUnknownFlag is in errors about flags that no command on the line has.
var errUnknownFlag = errors.New("unknown flag")

// parser reads the words of a command line.
type parser struct {
	command *Command
	words   []string // the remaining words
	literal bool     // none of them is a flag: they follow "--"
	given   int      // how many of the command's arguments have been read
}

// Parse reads a command line into the structs of the program and its commands. selected is
// the last command on the line, or the program, even if there is an error. help reports
// whether --help was given. In that case, Parse does not check for missing
// flags and arguments.
func (c *Command) Parse(args []string) (selected *Command, help bool, err error) {
	p := &parser{command: c, words: args}
	for len(p.words) > 0 && err == nil {
		err = p.next()
	}
	if err == nil && !c.help {
		err = p.command.check()
	}
	return p.command, c.help, err
}

// next reads a flag, an argument, or the name of a command.
func (p *parser) next() error {
	var arg *Value
	if p.given < len(p.command.Args) {
		arg = p.command.Args[p.given]
	}
	word := p.words[0]
	if !p.literal && looksLikeFlag(word) {
		if word == "--" {
			p.literal = true
			if arg == nil || !arg.passthrough {
				p.words = p.words[1:]
			}
			return nil
		}
		err := p.flag()
		if arg == nil || !arg.passthrough || !errors.Is(err, errUnknownFlag) {
			return err
		}
	}
	if arg != nil {
		return p.argument(arg)
	}
	child := p.command.Find(word)
	if child == nil {
		var names []string
		for _, c := range p.command.Commands {
			if !c.Hidden {
				names = append(names, c.Name)
			}
		}
		return fmt.Errorf("unexpected argument %s%s", word, suggestion(word, names))
	}
	p.command, p.words = child, p.words[1:]
	return nil
}

// argument reads a positional argument: one word, or all remaining words if it is a slice.
func (p *parser) argument(arg *Value) error {
	n := 1
	switch {
	case arg.passthrough:
		n = len(p.words)
	case arg.IsSlice():
		for n < len(p.words) && (p.literal || !looksLikeFlag(p.words[n])) {
			n++
		}
	}
	for _, word := range p.words[:n] {
		if err := arg.Set(word); err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
	}
	p.words = p.words[n:]
	p.given++
	return nil
}

// flag reads a flag, such as --json or --url=URL, or several letters, such as -qv.
func (p *parser) flag() error {
	word := p.words[0]
	if strings.HasPrefix(word, "--") {
		name, value, inline := strings.Cut(word, "=")
		flag, err := p.find(name)
		if err != nil {
			return err
		}
		p.words = p.words[1:]
		if !inline {
			return p.value(flag)
		}
		return set(flag, value)
	}
	for letters := word[1:]; letters != ""; {
		flag, err := p.find("-" + letters[:1])
		if err != nil {
			return err
		}
		letters = letters[1:]
		switch {
		case letters == "":
			p.words = p.words[1:]
			return p.value(flag)
		case flag.IsBool():
			if err := set(flag, "true"); err != nil {
				return err
			}
		default:
			p.words = p.words[1:]
			return set(flag, letters)
		}
	}
	return nil
}

// find returns the flag that a word names, such as --url or -v.
func (p *parser) find(word string) (*Value, error) {
	var names []string
	for _, f := range p.command.AllFlags() {
		names = append(names, f.String())
		if f.Short != "" {
			names = append(names, "-"+f.Short)
		}
		if word == f.String() || f.Short != "" && word == "-"+f.Short {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%w %s%s", errUnknownFlag, word, suggestion(word, names))
}

// value reads the value of a flag from the next word.
func (p *parser) value(flag *Value) error {
	switch {
	case flag.IsBool():
		return set(flag, "true")
	case len(p.words) == 0:
		return fmt.Errorf("%s: missing value, as in %s", flag, flag.Summary())
	}
	word := p.words[0]
	if looksLikeFlag(word) {
		return fmt.Errorf("%s: missing value; if the value is %q, write %s=%q", flag, word, flag, word)
	}
	p.words = p.words[1:]
	return set(flag, word)
}

// set sets a flag. The error names the flag.
func set(flag *Value, text string) error {
	if err := flag.Set(text); err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return nil
}

// looksLikeFlag reports whether a word is a flag or "--". A single hyphen is an argument.
func looksLikeFlag(word string) bool { return len(word) > 1 && word[0] == '-' }

// check returns an error if something is missing on the command line, or not allowed.
func (c *Command) check() error {
	var missing []string
	for _, f := range c.AllFlags() {
		if err := f.checkEnum(); err != nil {
			return err
		}
		if f.Required && !f.set {
			missing = append(missing, f.Summary())
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("missing flags: %s", strings.Join(missing, ", "))
	}
	for _, arg := range c.Args {
		if err := arg.checkEnum(); arg.set && err != nil {
			return err
		}
		if arg.Required && !arg.set {
			missing = append(missing, arg.Summary())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("expected %q", strings.Join(missing, " "))
	}
	for _, child := range c.Commands {
		if !child.Hidden {
			missing = append(missing, fmt.Sprintf("%q", child.Name))
		}
	}
	switch {
	case len(missing) == 0:
		return nil
	case len(missing) == 1:
		return fmt.Errorf("expected %s", missing[0])
	case len(missing) > 5:
		missing = append(missing[:5], "...")
	}
	return fmt.Errorf("expected one of %s", strings.Join(missing, ", "))
}

// checkEnum returns an error if the value is not one of those it may have.
func (v *Value) checkEnum() error {
	if v.Enum == nil || slices.Contains(v.Enum, v.target.String()) {
		return nil
	}
	var all []string
	for _, one := range v.Enum {
		all = append(all, fmt.Sprintf("%q", one))
	}
	return fmt.Errorf("invalid %s %q (want %s)", v, v.target.String(), strings.Join(all, ", "))
}

// suggestion returns the names that a misspelled word may mean, as the end of an error.
func suggestion(word string, names []string) string {
	var near []string
	for _, name := range names {
		if strings.HasPrefix(name, word) || distance(name, word) <= 2 {
			near = append(near, fmt.Sprintf("%q", name))
		}
	}
	switch len(near) {
	case 0:
		return ""
	case 1:
		return ", did you mean " + near[0] + "?"
	default:
		return ", did you mean one of " + strings.Join(near, ", ") + "?"
	}
}

// distance returns the Levenshtein distance of two words: the number of letters to insert,
// remove, or replace that turns one into the other.
func distance(a, b string) int {
	to := []rune(b)
	row := make([]int, len(to)+1) // the distances between the letters of a so far and the first letters of b
	for j := range row {
		row[j] = j
	}
	for _, x := range a {
		diagonal := row[0]
		row[0]++
		for j, y := range to {
			least := min(row[j+1], row[j]) + 1
			if x == y {
				least = min(least, diagonal)
			} else {
				least = min(least, diagonal+1)
			}
			diagonal, row[j+1] = row[j+1], least
		}
	}
	return row[len(to)]
}
