package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// asProgram makes the tests the program itself.
const asProgram = "AGRENTING_EXAMPLE_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// wrongNumber is one thing in the plural, or several in the singular.
var wrongNumber = regexp.MustCompile(`\b(1 (exchange|rotation|request)s|([02-9]|\d{2,}) (exchange|rotation|request))\b`)

func TestNoRequestFails(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	failed, err := run(t.Context(), &out, 700*time.Millisecond)
	t.Log("\n" + out.String())
	require.NoError(t, err)
	assert.Zero(t, failed)
	assert.Contains(t, out.String(), "; 0 failed")
	assert.Equal(t, 5, strings.Count(out.String(), "has rotated the key"))
	for n := 1; n <= 8; n++ {
		assert.Equal(t, 1, strings.Count(out.String(), fmt.Sprintf("  %d. 8 of 8 workers have ", n)), "step %d", n)
	}
	assert.Empty(t, wrongNumber.FindAllString(out.String(), -1))
}

func TestUnnoticedStepIsReported(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := &show{out: &out, began: time.Now()}
	s.tell(4, 0, 1)
	assert.Contains(t, out.String(), "  4. 8 of 8 workers have kept their session: 0 exchanges, 1 request in the meantime\n")
}

func TestAnInterruptEndsItCleanly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var out strings.Builder
	failed, err := run(ctx, &out, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Zero(t, failed)
	assert.NotContains(t, out.String(), "share one session", "it was not looked whether they do")
}

func TestAnInterruptedStepIsNotDone(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &interrupter{at: "has rotated the key", interrupt: interrupt}
	failed, err := run(ctx, out, time.Second)
	require.ErrorIs(t, err, context.Canceled)
	assert.Zero(t, failed)
	assert.Contains(t, out.String(), "  1. interrupted\n")
	assert.Equal(t, 1, strings.Count(out.String(), "  1. "), out)
}

// interrupter interrupts a program that says something.
type interrupter struct {
	strings.Builder
	at        string
	interrupt func()
}

func (w *interrupter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.at) {
		w.interrupt()
	}
	return w.Builder.Write(p)
}

func TestAfterAnInterruptClosingIsBounded(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	stuck := make(chan struct{})
	defer close(stuck)
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		within(ctx, func() { <-stuck })
	}()
	select {
	case <-waited:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}

func TestUninterruptedRunClosesEverything(t *testing.T) {
	t.Parallel()
	var closed bool
	within(t.Context(), func() {
		pause(t.Context(), 10*time.Millisecond)
		closed = true
	})
	assert.True(t, closed)
}
