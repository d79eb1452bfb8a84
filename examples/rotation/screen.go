package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go"
)

// reader writes to the reader of the output. If the reader has left, it acts as
// an interrupt: the Ctrl-C that ends a pipeline ends both programs, and the
// temporary folder must still be removed.
type reader struct {
	*os.File

	gone func()
}

func (r reader) Write(p []byte) (int, error) {
	n, err := r.File.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		r.gone()
	}
	return n, err
}

// screen shows the progress. On a terminal, it is one line that changes.
// Otherwise, it is one line for each second in which something has changed.
type screen struct {
	out      io.Writer
	terminal bool

	mu          sync.Mutex
	calls       int
	failures    int
	firstError  error
	generation  uint64
	fingerprint string
	rotations   map[string]int
	scene       string
	drawn       string // the state that was drawn last
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, rotations: map[string]int{}}
	if f, ok := out.(interface{ Stat() (os.FileInfo, error) }); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// observe records rotations. Events have fingerprints but no secrets.
func (s *screen) observe(e agrenting.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Type == agrenting.EventRotated {
		s.rotations[e.Reason]++
		s.generation, s.fingerprint = e.Generation, e.Fingerprint
	}
}

func (s *screen) called(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if err != nil {
		s.failures++
		if s.firstError == nil {
			s.firstError = err
		}
	}
}

func (s *screen) failed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures
}

func (s *screen) setScene(title string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scene = title
}

// start draws until the returned function is called.
func (s *screen) start() (stop func()) {
	every := time.Second
	if s.terminal {
		every = 100 * time.Millisecond
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				s.draw()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// state returns the current state: a scene or the use of the latest key.
func (s *screen) state() string {
	what := s.scene
	if what == "" {
		fp := s.fingerprint
		if fp == "" {
			fp = "the first key"
		}
		what = fmt.Sprintf("generation %d, %s", max(s.generation, 1), fp)
	}
	return fmt.Sprintf("%16s  %d failed  %s", counted(s.calls, "request"), s.failures, what)
}

func (s *screen) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.state()
	if text == s.drawn {
		return
	}
	s.drawn = text
	if s.terminal {
		s.overwrite(text)
	} else {
		fmt.Fprintln(s.out, text)
	}
}

// overwrite replaces the changing line and everything that was typed after it. A
// line that is wider than the terminal could not be replaced.
func (s *screen) overwrite(text string) {
	const width = 79
	if len(text) > width {
		text = text[:width]
	}
	fmt.Fprint(s.out, "\r"+text+"\x1b[K")
}

// line prints a line that remains.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		s.overwrite("")
		s.drawn = ""
	}
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *screen) summary(live int, revoked int64) {
	s.line("")
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%s, %d failed\n", counted(s.calls, "request"), s.failures)
	if s.firstError != nil {
		fmt.Fprintln(s.out, "the first failure:", s.firstError)
	}
	fmt.Fprintf(s.out, "%s by overlap, %d in place; generation %d\n",
		counted(s.rotations["overlap"], "rotation"), s.rotations["in place"], max(s.generation, 1))
	fmt.Fprintf(s.out, "%s revoked, %d live\n", counted(revoked, "key"), live)
}

// counted formats a number of things.
func counted[N int | int64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
