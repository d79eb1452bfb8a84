// Package cli describes commands by structs, reads command lines into them, and shows
// their help.
//
// It does not look up methods by name at run time. Otherwise, the linker would have to keep all
// exported methods, which makes a program several megabytes larger.
package cli

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Command is a command, such as "keys rotate" with the name "rotate" and the parent "keys", or
// the program itself. [New] sets all fields. Most programs only read Name, Parent, and Target.
type Command struct {
	Name     string
	Help     string
	Hidden   bool       // neither listed nor suggested
	Parent   *Command   // nil for the program
	Commands []*Command // its subcommands
	Flags    []*Value   // its own flags; those of the program include --help
	Args     []*Value   // its positional arguments
	Target   any        // the pointer to its struct

	help bool // --help was given; only used in the program
}

// Value is a flag, such as --url with the name "url", or a positional argument. [New] sets all
// fields. Most programs only read Name.
type Value struct {
	Name        string // of a flag without hyphens, such as key-file
	Short       string // a letter without a hyphen, or ""
	Help        string
	Placeholder string   // "" derives it from the default, the type, or the name
	Enum        []string // the values it may have; nil is any
	Required    bool

	isFlag      bool
	set         bool // given, or has a default
	passthrough bool // takes all words that follow, including flags
	preset      *string
	separator   string // between the elements of a slice in one value of a flag; "" is none
	target      reflect.Value
}

// New returns the program that grammar, a pointer to a struct, describes, and sets the
// defaults of its flags. The fields of the struct are commands or flags, and have these tags:
//
//	cmd:""          it is a command, and its type is a struct
//	arg:""          it is a positional argument
//	name:"url"      its name; by default, AgentID becomes agent-id
//	help:"…"        its description, where ${default} and ${enum} are replaced
//	default:"60s"   its value if it is not given
//	enum:"a,b"      the values it may have
//	required:"true" the flag has to be given
//	optional:""     the argument may be missing; only the last ones
//	short:"v"       the flag's letter
//	placeholder:"X" the name of the flag's value in help
//	sep:"none"      the flag's value is one element of the slice; by default, it is split at commas
//	hidden:""       the command is not listed
//	passthrough:""  the argument takes all words that follow
//	embed:""        the fields of this struct belong to the outer one, as if embedded
//
// The type of a flag or argument is bool, int, string, [time.Duration], []string, *string,
// *uint64, or one that implements [encoding.TextUnmarshaler]. New panics for any other
// type, and if a default is invalid. A program can parse only one command line.
func New(name, help string, grammar any) *Command {
	c := &Command{Name: name, Help: help, Target: grammar}
	c.Flags = []*Value{{
		Name: "help", Short: "h", Help: "Show this help.",
		isFlag: true, target: reflect.ValueOf(&c.help).Elem(),
	}}
	c.add(reflect.ValueOf(grammar).Elem())
	return c
}

// add adds the flags, arguments, and subcommands that the fields of a struct describe.
func (c *Command) add(fields reflect.Value) {
	for i := range fields.NumField() {
		field, target := fields.Type().Field(i), fields.Field(i)
		has := func(tag string) bool { _, ok := field.Tag.Lookup(tag); return ok }
		name := field.Tag.Get("name")
		if name == "" {
			name = dashed(field.Name)
		}
		switch {
		case field.Anonymous && field.Type.Kind() == reflect.Struct, has("embed"):
			c.add(target)
		case !field.IsExported():
		case has("cmd"):
			child := &Command{Name: name, Help: field.Tag.Get("help"), Hidden: has("hidden"), Parent: c, Target: target.Addr().Interface()}
			c.Commands = append(c.Commands, child)
			child.add(target)
		default:
			v := newValue(name, field.Tag, target)
			if v.isFlag {
				c.Flags = append(c.Flags, v)
			} else {
				c.Args = append(c.Args, v)
			}
		}
	}
}

func newValue(name string, tag reflect.StructTag, target reflect.Value) *Value {
	has := func(key string) bool { _, ok := tag.Lookup(key); return ok }
	v := &Value{
		Name: name, Short: tag.Get("short"), Placeholder: tag.Get("placeholder"),
		isFlag: !has("arg"), passthrough: has("passthrough"), target: target,
	}
	v.Required = has("required") || !v.isFlag && !has("optional")
	if list, ok := tag.Lookup("enum"); ok {
		v.Enum = strings.Split(list, ",")
	}
	if v.isFlag && tag.Get("sep") != "none" {
		v.separator = ","
	}
	preset, ok := tag.Lookup("default")
	if ok {
		v.preset = &preset
		if err := v.Set(preset); err != nil {
			panic(fmt.Sprintf("default of %s: %v", v, err))
		}
	}
	v.Help = strings.NewReplacer("${default}", preset, "${enum}", tag.Get("enum")).Replace(tag.Get("help"))
	v.checkType()
	return v
}

// dashed returns the name of a field with hyphens, such as agent-id for AgentID.
func dashed(name string) string {
	var b strings.Builder
	letters := []rune(name)
	for i, r := range letters {
		if i > 0 && unicode.IsUpper(r) &&
			(!unicode.IsUpper(letters[i-1]) || i+1 < len(letters) && unicode.IsLower(letters[i+1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Path returns the words that name the command, such as "keys rotate", without the name of
// the program.
func (c *Command) Path() string {
	if c.Parent == nil {
		return ""
	}
	return strings.TrimSpace(c.Parent.Path() + " " + c.Name)
}

// Find returns the subcommand with a name, or nil.
func (c *Command) Find(name string) *Command {
	for _, child := range c.Commands {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// Leaves returns the commands below this one that have no subcommands, except hidden ones.
func (c *Command) Leaves() []*Command {
	var all []*Command
	for _, child := range c.Commands {
		switch {
		case child.Hidden:
		case len(child.Commands) == 0:
			all = append(all, child)
		default:
			all = append(all, child.Leaves()...)
		}
	}
	return all
}

// AllFlags returns the flags that the command accepts: those of the program first, its own
// last.
func (c *Command) AllFlags() []*Value {
	if c.Parent == nil {
		return c.Flags
	}
	return slices.Concat(c.Parent.AllFlags(), c.Flags)
}

// String returns how messages name a value: --url, <name>, or [<name>] if it is optional.
func (v *Value) String() string {
	if v.isFlag {
		return "--" + v.Name
	}
	text := "<" + v.Name + ">"
	if v.IsSlice() {
		text += " ..."
	}
	if !v.Required {
		text = "[" + text + "]"
	}
	return text
}

// Summary returns a value as the usage line shows it: --url=URL, or what [Value.String]
// returns.
func (v *Value) Summary() string {
	if v.isFlag && !v.IsBool() {
		return v.String() + "=" + v.Metavar()
	}
	return v.String()
}

// Metavar returns the name of a flag's value in help, such as FILE. If the flag has no
// placeholder, this is its default, or derived from its type or name.
func (v *Value) Metavar() string {
	tail := ""
	if v.IsSlice() && v.separator != "" {
		tail = v.separator + "..."
	}
	switch typ := v.target.Type(); {
	case v.Placeholder != "":
		return v.Placeholder + tail
	case v.preset != nil && typ.Kind() == reflect.String:
		return strconv.Quote(*v.preset) + tail
	case v.preset != nil:
		return *v.preset + tail
	case typ.Name() != "":
		return strings.ToUpper(dashed(typ.Name())) + tail
	default:
		return strings.ToUpper(v.Name) + tail
	}
}

// IsBool reports whether a flag takes no value, unless after "=".
func (v *Value) IsBool() bool { return v.target.Kind() == reflect.Bool }

// IsSlice reports whether a value may be repeated.
func (v *Value) IsSlice() bool { return v.target.Kind() == reflect.Slice }

// checkType panics if the type of the value is not supported.
func (v *Value) checkType() {
	switch v.target.Addr().Interface().(type) {
	case encoding.TextUnmarshaler, *string, **string, *[]string, *bool, *int, **uint64, *time.Duration:
	default:
		panic(fmt.Sprintf("%s has the unsupported type %s", v, v.target.Type()))
	}
}

// Set sets the field of a value to what text means, or appends the elements of text to a slice.
func (v *Value) Set(text string) error {
	v.set = true
	switch p := v.target.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	case *string:
		*p = text
	case **string:
		*p = &text
	case *[]string:
		*p = append(*p, v.elements(text)...)
	case *bool:
		switch strings.ToLower(text) {
		case "true", "1", "yes":
			*p = true
		case "false", "0", "no":
			*p = false
		default:
			return fmt.Errorf("invalid value %q (want true, 1, yes, false, 0, or no)", text)
		}
	case *int:
		n, err := strconv.ParseInt(text, 0, strconv.IntSize)
		if err != nil {
			return fmt.Errorf("invalid number %q (want a %d-bit integer)", text, strconv.IntSize)
		}
		*p = int(n)
	case **uint64:
		n, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return fmt.Errorf("invalid number %q (want a 64-bit unsigned integer)", text)
		}
		*p = &n
	case *time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("invalid duration %q (want one such as 30s or 5m): %w", text, err)
		}
		*p = d
	}
	return nil
}

// elements splits the value of a flag at its separators, except at those that follow a backslash.
func (v *Value) elements(text string) []string {
	if v.separator == "" {
		return []string{text}
	}
	const escaped = "\x00" // arguments of a process cannot contain this byte
	var all []string
	for element := range strings.SplitSeq(strings.ReplaceAll(text, `\`+v.separator, escaped), v.separator) {
		all = append(all, strings.ReplaceAll(element, escaped, v.separator))
	}
	if all[len(all)-1] == "" { // also true if text is empty
		all = all[:len(all)-1]
	}
	return all
}
