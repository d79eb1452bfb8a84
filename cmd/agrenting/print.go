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

// printer writes for people or for programs.
type printer struct {
	out, err       io.Writer
	json           bool
	quiet          bool // no notes
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

// underlying returns the file that a stream is, if it is one.
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

// visible makes foreign text harmless for a terminal: spaces replace what is not printable, such as
// control, bidirectional, and zero-width characters.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
}

// outlet is standard output, through which everything goes. It remembers the
// first error, so that the one who ends the run can tell: those who write need
// not look.
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

// failed is the first error.
func (o *outlet) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// unwritten is the error if standard output could not be written. A reader that has
// gone, such as head, is an error only if it matters.
func (a *app) unwritten(matters bool) error {
	err := a.stdout.failed()
	if err == nil || (!matters && readerGone(err)) {
		return nil
	}
	return &cliError{code: codeFailure, kind: "output", err: err, msg: "standard output could not be written: " + cause(err).Error()}
}

// report reports an error as fail does. On a terminal, what to do is on its own line.
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

// finish looks at the end of a run whether all of its output was written.
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

// encode writes indented JSON with a line break behind it.
func encode(w io.Writer, v any) {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(v) //nolint:errchkjson // what is printed here encodes; if it fails, the reader has gone
}

// line prints one line for people.
func (p *printer) line(format string, args ...any) {
	fmt.Fprintf(p.out, format+"\n", args...)
}

// note tells people something on standard error; programs are spared it.
func (p *printer) note(format string, args ...any) {
	if !p.json && !p.quiet {
		fmt.Fprintln(p.err, p.errPaint(faint, visible(fmt.Sprintf(format, args...))))
	}
}

// pair is a line of a description.
type pair struct{ name, value string }

// secretName is the name of the pair that has a secret.
const secretName = "secret"

// pairs prints a description, without what is empty. If a secret is in it and a program
// reads standard output, then standard output gets the secret alone, and standard error
// the rest.
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

// table prints rows under a head.
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

// when renders a time for people; "" for none.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// ago renders an age or a remaining time roughly.
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
