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

// confirmFlags has the flag with which scripts skip the question.
type confirmFlags struct {
	Yes bool `short:"y" help:"Do not ask for confirmation."`
}

// confirm asks for confirmation of a step that cannot be undone.
func (a *app) confirm(f confirmFlags, question string) error {
	if f.Yes {
		return nil
	}
	if !isTerminal(a.in) || !isTerminal(a.err) {
		return usage("add --yes", "this cannot be undone, and there is no terminal to ask for confirmation: %s", question)
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
	return failure("", "canceled; nothing was changed")
}

// untilCanceled runs a read that may block, and returns early if the run is canceled. In that
// case, the read ends with the process.
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

// askSecret reads a line from standard input, which is a terminal, without showing it.
func (a *app) askSecret(prompt string) ([]byte, error) {
	f, ok := underlying(a.in)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	before, err := term.MakeRaw(int(f.Fd())) // from here on, nothing is shown
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

// keyboard is a terminal in raw mode, in which Ctrl-C is a byte instead of a signal.
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

// progressDelay is how long an operation runs before its progress is shown.
const progressDelay = 700 * time.Millisecond

// waiting shows the progress of a long operation on a terminal until stop is called.
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

// fitting shortens text so that it fits in one row together with behind. Only one row can be
// erased again.
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

// columns returns an upper bound of the columns that a text takes on a terminal.
func columns(text string) int {
	n := 0
	for _, r := range text {
		n++
		if r >= 0x1100 { // may be a wide character
			n++
		}
	}
	return n
}

// width returns the number of columns of a row of standard error, without the last column,
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
