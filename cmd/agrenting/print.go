package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// printer writes output for people or for programs.
type printer struct {
	out, err       io.Writer
	json           bool
	quiet          bool // notes are not printed
	color, onError bool // whether standard output and error are colored
}

func newPrinter(s streams, asJSON bool) *printer {
	p := &printer{out: s.out, err: s.err, json: asJSON}
	no, _ := s.lookup("NO_COLOR")
	kind, _ := s.lookup("TERM")
	if no == "" && kind != "dumb" {
		p.color, p.onError = isTerminal(s.out), isTerminal(s.err)
	}
	return p
}

func isTerminal(f any) bool {
	file, ok := underlying(f)
	return ok && term.IsTerminal(int(file.Fd()))
}

// underlying returns the file of a stream, if the stream is a file.
func underlying(f any) (*os.File, bool) {
	if o, ok := f.(*outlet); ok {
		f = o.to
	}
	file, ok := f.(*os.File)
	return file, ok
}

// The colors.
type paint string

const (
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
	bold   paint = "1"
	faint  paint = "2"
)

func (p *printer) paint(c paint, text string) string    { return painted(p.color, c, text) }
func (p *printer) errPaint(c paint, text string) string { return painted(p.onError, c, text) }

func painted(on bool, c paint, text string) string {
	if !on || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// visible makes external text harmless for a terminal: spaces replace unprintable characters, such
// as control, bidirectional, and zero-width characters.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
}

// outlet is standard output. It remembers the first error, which is checked at the end of the
// run, so that callers of Write need not check errors.
type outlet struct {
	to  io.Writer
	mu  sync.Mutex
	err error
}

// Write always succeeds.
func (o *outlet) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		_, o.err = o.to.Write(b)
	}
	return len(b), nil
}

// failed returns the first error.
func (o *outlet) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// unwritten returns an error if standard output could not be written. If the reader has exited,
// such as head, that is an error only if matters is set.
func (a *app) unwritten(matters bool) error {
	err := a.stdout.failed()
	if err == nil || (!matters && readerGone(err)) {
		return nil
	}
	return &cliError{code: codeFailure, kind: "output", err: err, msg: "standard output could not be written: " + cause(err).Error()}
}

// report reports an error as fail does. On a terminal, the remedy is on a separate line.
func (a *app) report(err error) int {
	if _, ok := errors.AsType[exitStatusError](err); ok || a.ui.json || !a.ui.onTerminal() {
		return a.fail(err)
	}
	e := *a.classify(err)
	hint := visible(e.hint)
	e.hint, e.err = "", err
	code := a.fail(&e)
	if hint == "" || strings.Contains(visible(e.msg), hint) {
		return code
	}
	if a.hide != nil {
		hint = a.hide(hint)
	}
	fmt.Fprintln(a.err, a.ui.errPaint(yellow, "-> "+hint))
	return code
}

// finish checks at the end of a run whether all output was written.
func (a *app) finish(code int) int {
	msg, hint := "", ""
	c, ok := a.command.(interface{ shows() bool })
	matters := ok && c.shows()
	if l, ok := a.command.(loser); ok && matters && code == codeOK {
		msg, hint = l.lost()
	}
	err := a.unwritten(matters)
	if err == nil || a.toldOutput {
		return code
	}
	if msg != "" {
		err = lostSecret(err, msg, hint)
	}
	return cmp.Or(code, a.report(err))
}

// encode writes indented JSON and a line break.
func encode(w io.Writer, v any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(v) //nolint:errchkjson // all values that are printed can be encoded; if it fails, the reader has exited
}

// line prints one line for people.
func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(p.out, format+"\n", args...)
}

// note prints a note for people on standard error. With --json, it prints nothing.
func (p *printer) note(format string, args ...any) {
	if !p.json && !p.quiet {
		fmt.Fprintln(p.err, p.errPaint(faint, visible(fmt.Sprintf(format, args...))))
	}
}

// pair is a name and a value, one line of a description.
type pair struct{ name, value string }

// secretName is the name of the pair that has a secret.
const secretName = "secret"

// pairs prints a description, without empty values. If it contains a secret and a program reads
// standard output, then only the secret goes to standard output, and the rest goes to standard
// error.
func (p *printer) pairs(all ...pair) {
	i := slices.IndexFunc(all, func(l pair) bool { return l.name == secretName && l.value != "" })
	if i < 0 || (!p.quiet && isTerminal(p.out)) {
		p.describe(p.out, p.color, all)
		return
	}
	p.line("%s", visible(all[i].value))
	if !p.quiet {
		p.describe(p.err, p.onError, slices.Delete(slices.Clone(all), i, i+1))
	}
}

// describe writes pairs with their names in a column.
func (p *printer) describe(w io.Writer, color bool, all []pair) {
	width := 0
	for _, l := range all {
		if l.value != "" {
			width = max(width, len(l.name))
		}
	}
	for _, l := range all {
		if l.value != "" {
			fmt.Fprintf(w, "%s  %s\n", painted(color, faint, fmt.Sprintf("%-*s", width, l.name)), visible(l.value))
		}
	}
}

// table prints rows under a header.
func (p *printer) table(head []string, rows [][]string) {
	width := make([]int, len(head))
	for _, r := range append([][]string{head}, rows...) {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(visible(c)))
		}
	}
	row := func(cells []string) string {
		var b strings.Builder
		for i, c := range cells {
			c = visible(c)
			b.WriteString(c)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
			}
		}
		return strings.TrimRight(b.String(), " ")
	}
	fmt.Fprintln(p.out, p.paint(faint, row(head)))
	for _, r := range rows {
		fmt.Fprintln(p.out, row(r))
	}
}

// when formats a time for people. It returns "" for the zero time.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// ago formats an age or a remaining time, rounded.
func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
}
