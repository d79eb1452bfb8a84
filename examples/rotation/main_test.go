package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is the process that gets killed, when it is started as such.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == crashCommand {
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

func TestNobodyNoticesTheRotations(t *testing.T) {
	t.Parallel()
	out := &transcript{}
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	s, err := newShow(path, out)
	require.NoError(t, err)
	defer s.srv.Close()
	err = s.run(t.Context(), 10*time.Millisecond)
	text := out.String()
	require.NoError(t, err, text)
	assert.Contains(t, text, " 0 failed")
	assert.Contains(t, text, "1 rotations by overlap, 3 in place; generation 5")
	assert.Contains(t, text, "4 keys were revoked, 1 live")
	for _, title := range []string{"overlap: ", "in place: ", "gets lost", "is killed"} {
		assert.Contains(t, text, title)
	}
	assert.NotContains(t, text, "\r", "it is no terminal")

	assert.Empty(t, secretShape.FindAllString(text, -1))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	var rec struct{ Current struct{ Secret string } }
	require.NoError(t, json.Unmarshal(b, &rec))
	require.Regexp(t, secretShape, rec.Current.Secret, "the pattern would have found it")
	assert.NotContains(t, text, rec.Current.Secret)
}

func TestAnInterruptEndsItWithASummary(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	out := &transcript{}
	began := time.Now()
	require.NoError(t, run(ctx, []string{"-duration", "1h"}, out))
	assert.Less(t, time.Since(began), 20*time.Second)
	assert.Contains(t, out.String(), " 0 failed")
	assert.Contains(t, out.String(), "keys were revoked")
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
		assert.Less(t, len(part), 120)
	}
}
