package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// confirmFlags spare scripts the question.
type confirmFlags struct {
	Yes bool `short:"y" help:"Do it without asking."`
}

// confirm asks before what cannot be undone.
func (a *app) confirm(f confirmFlags, question string) error {
	if f.Yes {
		return nil
	}
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return usage("add --yes", "this cannot be undone, and there is no terminal to ask at: %s", question)
	}
	fmt.Fprintf(a.err, "%s %s ", a.ui.errPaint(yellow, visible(question)), a.ui.errPaint(bold, "[y/N]"))
	line, err := untilCanceled(a.ctx, func() (string, error) {
		return bufio.NewReader(io.LimitReader(a.in, 1024)).ReadString('\n')
	})
	if err != nil {
		fmt.Fprintln(a.err) // the line break was not typed
	}
	if a.ctx.Err() != nil {
		return a.ctx.Err()
	}
	if s := strings.ToLower(strings.TrimSpace(line)); s == "y" || s == "yes" {
		return nil
	}
	return failure("", "nothing was done")
}

// untilCanceled runs a read that may block, until the run is canceled. A read that is left
// behind ends with the process.
func untilCanceled[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := read()
		done <- result{value, err}
	}()
	select {
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	case r := <-done:
		return r.value, r.err
	}
}

// askSecret reads a line from the terminal that is standard input, without showing it.
func (a *app) askSecret(prompt string) ([]byte, error) {
	f, ok := underlying(a.in)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	before, err := term.MakeRaw(int(f.Fd())) // nothing is shown from here on
	if err != nil {
		return nil, err
	}
	defer func() { _ = term.Restore(int(f.Fd()), before) }() // also when the run was canceled
	keys := &keyboard{Reader: f, Writer: a.err}
	line, err := untilCanceled(a.ctx, func() (string, error) {
		return term.NewTerminal(keys, "").ReadPassword(a.ui.errPaint(bold, prompt) + " ")
	})
	if err != nil {
		fmt.Fprint(a.err, "\r\n")
	}
	if err != nil && keys.interrupted.Load() {
		return nil, &cliError{code: codeInterrupted, kind: "interrupted", msg: "interrupted", err: context.Canceled}
	}
	return []byte(line), err
}

// keyboard is a terminal in raw mode, where Ctrl-C is a byte and not a signal.
type keyboard struct {
	io.Reader
	io.Writer
	interrupted atomic.Bool
}

// Read implements [io.Reader].
func (k *keyboard) Read(b []byte) (int, error) {
	n, err := k.Reader.Read(b)
	if bytes.IndexByte(b[:n], 3) >= 0 {
		k.interrupted.Store(true)
	}
	return n, err
}

// progressDelay spares people the sight of what is quick.
const progressDelay = 700 * time.Millisecond

// waiting shows on a terminal that something takes long, until it is stopped.
func (a *app) waiting(format string, args ...any) (stop func()) {
	if !a.ui.onTerminal() || a.ui.json || a.ui.quiet || a.Verbose {
		return func() {}
	}
	text := visible(fmt.Sprintf(format, args...))
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		start := time.Now()
		timer := time.NewTimer(progressDelay)
		defer timer.Stop()
		drawn := false
		for {
			select {
			case <-done:
				if drawn {
					fmt.Fprint(a.err, "\r\x1b[K")
				}
				return
			case <-timer.C:
				drawn = true
				fmt.Fprintf(a.err, "\r\x1b[K%s", a.ui.errPaint(faint, fitting(text, fmt.Sprintf(" … %d s", int(time.Since(start).Seconds())), a.ui.width())))
				timer.Reset(time.Second)
			}
		}
	}()
	var once sync.Once
	return func() { once.Do(func() { close(done); <-ended }) }
}

// fitting cuts a text so that it and what is behind it stay in one row: only that
// one can be taken away again.
func fitting(text, behind string, width int) string {
	room := max(0, width-columns(behind))
	if columns(text) <= room {
		return text + behind
	}
	at := 0
	for i, r := range text {
		if room -= columns(string(r)); room < 0 {
			break
		}
		at = i + utf8.RuneLen(r)
	}
	return strings.TrimRight(text[:at], " ") + behind
}

// columns is how many columns a text takes on a terminal, at most.
func columns(text string) int {
	n := 0
	for _, r := range text {
		n++
		if r >= 0x1100 { // may be a wide one
			n++
		}
	}
	return n
}

// width is how many columns a row of standard error has, without the last one,
// where some terminals begin the next row.
func (p *printer) width() int {
	if f, ok := p.err.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w - 1
		}
	}
	return 79
}

// onTerminal reports whether standard error is a terminal.
func (p *printer) onTerminal() bool { return isTerminal(p.err) }
