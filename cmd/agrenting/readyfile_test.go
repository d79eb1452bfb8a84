package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadyFileIsRemovedByItsOwnerOnly(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, path string)
		left      bool
	}{
		"nothing happened": {func(*testing.T, string) {}, false},
		"removed":          {func(t *testing.T, path string) { t.Helper(); require.NoError(t, os.Remove(path)) }, false},
		"another with the same text and time": {func(t *testing.T, path string) {
			t.Helper()
			old, err := os.Lstat(path)
			require.NoError(t, err)
			require.NoError(t, writeFile(path, "text"))
			require.NoError(t, os.Chtimes(path, old.ModTime(), old.ModTime()))
		}, true},
		"the same file with another text": {func(t *testing.T, path string) {
			t.Helper()
			old, err := os.Lstat(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte("other"), 0o600))
			require.NoError(t, os.Chtimes(path, old.ModTime(), old.ModTime()))
		}, true},
		"the same file at another time": {func(t *testing.T, path string) {
			t.Helper()
			later := time.Now().Add(time.Second)
			require.NoError(t, os.Chtimes(path, later, later))
		}, true},
		"a folder": {func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "ready")
			r, err := newReadyFile("--ready-file", path)
			require.NoError(t, err)
			require.NoError(t, r.write("text"))
			c.meanwhile(t, path)
			r.remove()
			_, err = os.Lstat(path)
			assert.Equal(t, c.left, err == nil, err)
			r.remove()
		})
	}
}

func TestReadyFileFromBefore(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	path := filepath.Join(dir, "ready")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	r, err := newReadyFile("--ready-file", path)
	require.NoError(t, err)
	assert.NoFileExists(t, path)
	r.remove()

	link := filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	if os.Symlink(path, link) == nil {
		_, err = newReadyFile("--ready-file", link)
		require.ErrorContains(t, err, "is no regular file")
		assert.FileExists(t, path)
	}

	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	if f, err := os.CreateTemp(dir, ""); err == nil {
		_ = f.Close()
		t.Skip("this user may write everywhere")
	}
	_, err = newReadyFile("--ready-file", path)
	require.ErrorContains(t, err, "--ready-file: "+path+" is there from before and cannot be removed")
}

// TestReadyFileGoesBeforeTheLastRequestsEnd: a proxy that lets no newcomer in is
// not ready.
func TestReadyFileGoesBeforeTheLastRequestsEnd(t *testing.T) {
	t.Parallel()

	arrived, release := make(chan struct{}), make(chan struct{})
	platform := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-release
	}))
	t.Cleanup(platform.Close)
	path := filepath.Join(t.TempDir(), "ready")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"proxy", "--url", platform.URL, "--ready-file", path}, streams{
			in: strings.NewReader(""), out: io.Discard, err: io.Discard, environ: func() []string { return nil },
			lookup: func(name string) (string, bool) {
				return strings.Repeat("0123456789", 4), name == varAPIKey
			},
		})
	}()
	there := func() bool { _, err := os.Lstat(path); return err == nil }
	require.Eventually(t, there, 20*time.Second, 5*time.Millisecond)
	address, err := os.ReadFile(path)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	answered := make(chan error, 1)
	go func() {
		resp, err := client.Get(strings.TrimSpace(string(address)) + "/api/v1/agents")
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	<-arrived
	interrupt()
	assert.Eventually(t, func() bool { return !there() }, 5*time.Second, 5*time.Millisecond)
	assert.Empty(t, ended, "it has not waited for the request")
	close(release)
	require.NoError(t, <-answered)
	assert.Equal(t, codeOK, <-ended)
}

func TestAFileThatCannotBeWrittenLeavesNothingBehind(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	require.NoError(t, os.Mkdir(path, 0o700))
	err := writeFile(path, "text")
	require.ErrorContains(t, err, path+" could not be written")
	require.NotContains(t, err.Error(), "secret")
	all, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, all, 1)
}
