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
			r, err := newReadyFile("--ready-file", path, isText)
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

func isText(text string) bool { return text == "text\n" }

func TestReadyFileFromBefore(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	path := filepath.Join(dir, "ready")
	require.NoError(t, os.WriteFile(path, []byte("text\n"), 0o600))
	r, err := newReadyFile("--ready-file", path, isText)
	require.NoError(t, err)
	assert.FileExists(t, path, "it is too early")
	require.NoError(t, r.clear())
	assert.NoFileExists(t, path)
	require.NoError(t, r.clear())
	r.remove()

	link := filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(path, []byte("text\n"), 0o600))
	if os.Symlink(path, link) == nil {
		_, err = newReadyFile("--ready-file", link, isText)
		require.ErrorContains(t, err, "is not a regular file")
		assert.FileExists(t, path)
	}

	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	if f, err := os.CreateTemp(dir, ""); err == nil {
		_ = f.Close()
		t.Skip("this user may write everywhere")
	}
	r, err = newReadyFile("--ready-file", path, isText)
	require.NoError(t, err)
	require.ErrorContains(t, r.clear(), "--ready-file: "+path+" is there from before and cannot be removed")
}

// TestFilesOfOthersAreNotReadyFiles checks that the command keeps files that it has not written,
// also if they are created while the command starts.
func TestFilesOfOthersAreNotReadyFiles(t *testing.T) {
	t.Parallel()

	for name, content := range map[string]string{
		"nothing": "", "a word more": "text\nmore\n", "a line less": "text", "a lot": strings.Repeat("text\n", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), ".env")
			early, err := newReadyFile("--env-file", path, isText)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
			_, err = newReadyFile("--env-file", path, isText)
			require.ErrorContains(t, err, "--env-file: "+path+" exists, and was not written by this command")
			for _, err := range []error{err, early.clear(), early.write("text")} {
				var e *cliError
				require.ErrorAs(t, err, &e)
				assert.Equal(t, codeUsage, e.code)
				assert.Contains(t, e.hint, "choose another name")
			}
			early.remove()
			now, err := os.ReadFile(path)
			require.NoError(t, err)
			assert.Equal(t, content, string(now))
		})
	}
}

func TestKnownFilesOfCommands(t *testing.T) {
	t.Parallel()

	own := envFileMark + "\n" + exports(&jsonSandbox{Env: map[string]string{
		varURL: "http://[::1]:8080", varAPIKey: "ap_x-9/+=", varAgentID: "00000000-0000-4000-8000-000000000000",
	}})
	assert.True(t, envFile.MatchString(own))
	for _, other := range []string{
		"", envFileMark + "\n", own + "DATABASE_URL=x\n", own + "export DATABASE_URL=x\n", "A=b\n" + own, own + "\n",
		strings.TrimPrefix(own, envFileMark+"\n"), strings.TrimSuffix(own, "\n"), own + "export AGRENTING_API_KEY=a b\n",
	} {
		assert.False(t, envFile.MatchString(other), "%q", other)
	}
	for _, url := range []string{"http://127.0.0.1:8080", "http://127.9.9.9:1", "http://[::1]:65535", "http://localhost"} {
		assert.True(t, isProxyURL(url+"\n"), url)
		for _, other := range []string{url, url + "/", url + "\n\n", " " + url + "\n", url + "\nmore\n", url + "?a\n", "x" + url + "\n"} {
			assert.False(t, isProxyURL(other), "%q", other)
		}
	}
	for _, other := range []string{"", "\n", "http://10.0.0.1:80\n", "https://127.0.0.1:80\n", "http://localhost:80\n", "http://example.com\n", "http://127.0.0.1\n"} {
		assert.False(t, isProxyURL(other), "%q", other)
	}
}

// TestReadyFileGoesBeforeTheLastRequestsEnd checks that the ready file is removed when the proxy
// stops accepting connections.
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

func TestFailedWriteLeavesNoFile(t *testing.T) {
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
