package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// asProgram makes the tests the program itself.
const asProgram = "AGRENTING_EXAMPLE_AS_PROGRAM"

// TestMain is the process that gets killed, when it is started as such.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" || len(os.Args) > 1 && os.Args[1] == crashCommand {
		main()
		return
	}
	os.Exit(m.Run())
}

// transcript keeps what is printed.
type transcript struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// secretShape is what the embedded platform's keys and sessions look like.
var secretShape = regexp.MustCompile(`\b[0-9a-f]{40}\b|\b[A-Za-z0-9_-]{43}\b`)

func TestRotationsFailNoRequest(t *testing.T) {
	t.Parallel()
	out := &transcript{}
	folder := filepath.Join(t.TempDir(), "keys")
	s, err := newShow(folder, out)
	require.NoError(t, err)
	defer s.srv.Close()
	err = s.run(t.Context(), 10*time.Millisecond)
	text := out.String()
	require.NoError(t, err, text)
	assert.Contains(t, text, " 0 failed")
	assert.Contains(t, text, "1 rotation by overlap, 3 in place; generation 5")
	assert.Contains(t, text, "4 keys revoked, 1 live")
	assert.NotContains(t, text, "interrupted")
	for _, title := range []string{"overlap: ", "in place: ", "gets lost", "is killed"} {
		assert.Contains(t, text, title)
	}
	assert.NotContains(t, text, "\r", "the output is not a terminal")

	assert.Empty(t, secretShape.FindAllString(text, -1))
	b, err := os.ReadFile(filepath.Join(folder, "key.record"))
	require.NoError(t, err)
	require.Regexp(t, secretShape, string(b), "the pattern would have found it")
	key, err := agrenting.LoadKeyState(t.Context(), s.store)
	require.NoError(t, err)
	assert.NotContains(t, text, key.Credential.Reveal())
}

func TestAnInterruptEndsItWithASummary(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	out := &transcript{}
	began := time.Now()
	require.ErrorIs(t, run(ctx, []string{"-duration", "1h"}, out), ctx.Err())
	assert.Less(t, time.Since(began), 10*time.Second)
	assert.Contains(t, out.String(), " 0 failed")
	assert.Contains(t, out.String(), "0 keys revoked, 1 live")
}

func TestAnInterruptedSceneIsNotDone(t *testing.T) {
	t.Parallel()
	out := &transcript{}
	s, err := newShow(t.TempDir(), out)
	require.NoError(t, err)
	defer s.srv.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	s.srv.Fault(routeRotate, agrentingtest.Delay(time.Minute)) // the second scene does not get on
	go func() {
		_ = s.await(ctx, func() bool { return s.srv.Stats().Faults > 0 }) // its result would be missed
		interrupt()
	}()
	require.ErrorIs(t, s.run(ctx, 10*time.Millisecond), context.Canceled)
	assert.Regexp(t, `(?m)^overlap: .* \d+ ms$`, out.String())
	assert.Regexp(t, `(?m)^in place: .* \d+ ms, interrupted$`, out.String())
}

func TestAfterAnInterruptClosingIsBounded(t *testing.T) {
	t.Parallel()
	s, err := newShow(t.TempDir(), &transcript{})
	require.NoError(t, err)
	defer s.srv.Close()
	s.screen.mu.Lock() // a client is closed when its observer has heard everything
	defer s.screen.mu.Unlock()
	_, err = s.overlap.Credential(t.Context())
	require.NoError(t, err)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	closed := make(chan error, 1)
	go func() { closed <- s.close(ctx) }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}

func TestOddArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	require.Error(t, run(t.Context(), []string{"-nonsense"}, &transcript{}))
	require.Error(t, run(t.Context(), []string{crashCommand}, &transcript{}))
	require.NoError(t, run(t.Context(), []string{"-h"}, &transcript{}))
}

func TestATerminalHasOneLiveLine(t *testing.T) {
	t.Parallel()
	out := &transcript{}
	s := newScreen(out)
	s.terminal = true
	s.setScene(strings.Repeat("long ", 40))
	s.called(nil)
	s.draw()
	s.setScene("")
	s.draw()
	s.line("done")
	text := out.String()
	assert.Equal(t, 1, strings.Count(text, "\n"))
	for part := range strings.SplitSeq(text, "\r") {
		assert.Less(t, len(strings.TrimSuffix(part, "\x1b[K")), 80)
	}
}

func TestNonTerminalOutputPrintsChangesOnly(t *testing.T) {
	t.Parallel()
	out := &transcript{}
	s := newScreen(out)
	s.called(nil)
	s.draw()
	s.draw()
	s.setScene("a scene without a response")
	s.draw()
	s.draw()
	s.called(nil)
	s.draw()
	assert.Equal(t, []string{
		"       1 request  0 failed  generation 1, the first key",
		"       1 request  0 failed  a scene without a response",
		"      2 requests  0 failed  a scene without a response",
		"",
	}, strings.Split(out.String(), "\n"))
}

func TestOneThingIsSingular(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "0 keys, 1 key, 2 keys", counted(0, "key")+", "+counted(1, "key")+", "+counted(int64(2), "key"))
}
