package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go"
)

// screen shows how it goes: one line that changes on a terminal, and a line each
// second elsewhere.
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
	drawn       int // length of the live line
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, rotations: map[string]int{}}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// observe follows the key. Events carry fingerprints and no secrets.
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

func (s *screen) state() string {
	fp := s.fingerprint
	if fp == "" {
		fp = "the first key"
	}
	return fmt.Sprintf("%7d requests  %d failed  generation %d, %s", s.calls, s.failures, max(s.generation, 1), fp)
}

func (s *screen) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.state()
	if !s.terminal {
		fmt.Fprintln(s.out, text)
		return
	}
	if s.scene != "" {
		text += "  " + s.scene
	}
	s.overwrite(text)
}

// overwrite replaces the live line, within the width of a common terminal.
func (s *screen) overwrite(text string) {
	const width = 118
	if len(text) > width {
		text = text[:width]
	}
	fmt.Fprint(s.out, "\r"+text+strings.Repeat(" ", max(0, s.drawn-len(text))))
	s.drawn = len(text)
}

// line prints something that stays.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal {
		s.overwrite("")
		fmt.Fprint(s.out, "\r")
		s.drawn = 0
	}
	fmt.Fprintf(s.out, format+"\n", args...)
}

func (s *screen) summary(live int, revoked int64) {
	s.line("")
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%d requests, %d failed\n", s.calls, s.failures)
	if s.firstError != nil {
		fmt.Fprintln(s.out, "the first failure:", s.firstError)
	}
	fmt.Fprintf(s.out, "%d rotations by overlap, %d in place; generation %d\n",
		s.rotations["overlap"], s.rotations["in place"], max(s.generation, 1))
	fmt.Fprintf(s.out, "%d keys were revoked, %d live\n", revoked, live)
}
