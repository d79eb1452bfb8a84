package keyfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func credential(kind secret.Kind, text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: kind, Secret: text})
}

// problemOf returns what was wrong with the file when it was last checked, although a
// credential may have been returned.
func problemOf(f *File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problem
}

// writeKey writes a file that looks as if it was last modified a while ago. Times
// that lie far enough back are trusted.
func writeKey(t *testing.T, path, content string, age time.Duration) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))

	modified := time.Now().Add(-age)
	require.NoError(t, os.Chtimes(path, modified, modified))
}

func readKey(t *testing.T, src *File) string {
	t.Helper()

	c, err := src.Credential(t.Context())
	require.NoError(t, err)

	return c.Reveal()
}

func TestFileReadsCredential(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		content string
		kind    secret.Kind // override
		want    secret.Credential
	}{
		"api key":         {"k1", 0, credential(secret.KindAPIKey, "k1")},
		"user token":      {"ap_k1\n", 0, credential(secret.KindUserToken, "ap_k1")},
		"override":        {"ap_k1\n", secret.KindAPIKey, credential(secret.KindAPIKey, "ap_k1")},
		"session":         {"k1", secret.KindSession, credential(secret.KindSession, "k1")},
		"windows editor":  {"\ufeffk1\r\n", 0, credential(secret.KindAPIKey, "k1")},
		"blank lines":     {"\n\n  k1  \n\n", 0, credential(secret.KindAPIKey, "k1")},
		"much white room": {strings.Repeat("\n", 60<<10) + "k1", 0, credential(secret.KindAPIKey, "k1")},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "key")
			writeKey(t, path, tc.content, time.Hour)

			src := New(path, tc.kind)
			for range 2 {
				c, err := src.Credential(t.Context())
				require.NoError(t, err)
				assert.True(t, tc.want.Equal(c), c.String())
			}

			require.NoError(t, problemOf(src))
		})
	}
}

func TestFileNamesPathAndProblemButNoContent(t *testing.T) {
	t.Parallel()

	const part = "Zq7Wm3Xp9Rt5Kv2Ln8"

	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		writeKey(t, path, content, time.Hour)

		return path
	}

	loop := filepath.Join(dir, "loop")
	require.NoError(t, os.Symlink(loop, loop))
	dangling := filepath.Join(dir, "dangling")
	require.NoError(t, os.Symlink(filepath.Join(dir, "absent"), dangling))

	cases := map[string]struct {
		path string
		is   []error
		want string
	}{
		"missing":    {filepath.Join(dir, "absent"), []error{secret.ErrNoCredential, fs.ErrNotExist}, "absent"},
		"no path":    {"", []error{secret.ErrNoCredential}, "path of the key file is empty"},
		"directory":  {dir, []error{secret.ErrNoCredential, secret.ErrInvalidCredential}, "is a directory"},
		"dangling":   {dangling, []error{secret.ErrNoCredential, fs.ErrNotExist}, "dangling"},
		"loop":       {loop, []error{secret.ErrNoCredential, secret.ErrInvalidCredential}, "loop"},
		"empty":      {file("empty", ""), []error{secret.ErrNoCredential, secret.ErrInvalidCredential}, `empty" is empty`},
		"blank":      {file("blank", " \n"), []error{secret.ErrNoCredential, secret.ErrInvalidCredential}, `blank" is empty`},
		"two lines":  {file("lines", part+"\n"+part), []error{secret.ErrInvalidCredential}, "a line break at byte 19 of 37"},
		"JSON":       {file("json", `{"key":"`+part+`"}`), []error{secret.ErrInvalidCredential}, "is enclosed in"},
		"binary":     {file("bin", part+"\x00"), []error{secret.ErrInvalidCredential}, "a control character"},
		"long":       {file("long", strings.Repeat(part, 300)), []error{secret.ErrInvalidCredential}, "5400 bytes long"},
		"huge":       {file("huge", strings.Repeat(part, 4000)), []error{secret.ErrInvalidCredential}, "larger than 65536 bytes"},
		"huge blank": {file("white", strings.Repeat(" ", 1<<20)), []error{secret.ErrInvalidCredential}, "larger than 65536 bytes"},
		"key as path": {
			"sk_sandbox_" + part,
			[]error{secret.ErrNoCredential, fs.ErrNotExist},
			"[redacted]",
		},
		"unprefixed key as path": {part + part, []error{secret.ErrNoCredential, fs.ErrNotExist}, "[redacted]"},
	}

	if runtime.GOOS != "windows" {
		cases["device"] = struct {
			path string
			is   []error
			want string
		}{os.DevNull, []error{secret.ErrNoCredential, secret.ErrInvalidCredential}, "is a device"}
		cases["in a file"] = struct {
			path string
			is   []error
			want string
		}{filepath.Join(file("plain", part), "key"), []error{secret.ErrNoCredential, secret.ErrInvalidCredential, syscall.ENOTDIR}, "plain"}
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			src := New(tc.path, 0)

			_, err := src.Credential(t.Context())
			require.ErrorContains(t, err, tc.want)

			for _, is := range tc.is {
				require.ErrorIs(t, err, is)
			}

			assert.Equal(t, slices.Contains(tc.is, secret.ErrInvalidCredential), errors.Is(err, secret.ErrInvalidCredential),
				"a chain of sources ends there")
			require.Equal(t, err, problemOf(src))
			assert.NotContains(t, err.Error(), part[:6])
			assert.NotContains(t, secret.QuotePath(src.Path()), part[:6])
			assert.Equal(t, 1, strings.Count(err.Error(), "agrenting:"))

			_, again := src.Credential(t.Context())
			require.EqualError(t, again, err.Error())

			_, err = src.Refresh(t.Context(), credential(secret.KindAPIKey, "rejected"))
			require.EqualError(t, err, again.Error())
		})
	}
}

func TestFileFollowsEveryKindOfChange(t *testing.T) {
	t.Parallel()

	changes := map[string]func(t *testing.T, path string){
		"rewritten in place, longer": func(t *testing.T, path string) {
			t.Helper()
			writeKey(t, path, "second-key", time.Hour)
		},
		"rewritten in place, same size, later": func(t *testing.T, path string) {
			t.Helper()
			writeKey(t, path, "key-2", 30*time.Minute)
		},
		"rewritten in place, same size, now": func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.WriteFile(path, []byte("key-2"), 0o600))
		},
		"replaced, same size and time": func(t *testing.T, path string) {
			t.Helper()

			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path+".new", []byte("key-2"), 0o600))
			require.NoError(t, os.Chtimes(path+".new", info.ModTime(), info.ModTime()))
			require.NoError(t, os.Rename(path+".new", path))
		},
	}

	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "key")
			writeKey(t, path, "key-1", time.Hour+time.Minute)

			src := New(path, 0)
			require.Equal(t, "key-1", readKey(t, src))
			change(t, path)
			require.NotEqual(t, "key-1", readKey(t, src))
		})
	}
}

func TestFileSeesTwoWritesWithinOneClockTick(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	now := time.Now()

	src := New(path, 0)

	for _, content := range []string{"key-1", "key-2", "key-3"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		require.NoError(t, os.Chtimes(path, now, now)) // same size, time and file
		require.Equal(t, content, readKey(t, src))
	}
}

func TestFileFollowsSymlinkSwap(t *testing.T) {
	t.Parallel()

	// As the kubelet lays it out: key → ..data/key, ..data → ..<timestamp>.
	dir := t.TempDir()
	for _, gen := range []string{"1", "2"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, "..gen"+gen), 0o700))
		writeKey(t, filepath.Join(dir, "..gen"+gen, "key"), "key-"+gen, time.Hour)
	}

	point := func(gen string) {
		require.NoError(t, os.Symlink("..gen"+gen, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}

	point("1")
	require.NoError(t, os.Symlink(filepath.Join("..data", "key"), filepath.Join(dir, "key")))

	src := New(filepath.Join(dir, "key"), 0)
	require.Equal(t, "key-1", readKey(t, src))
	point("2")
	require.Equal(t, "key-2", readKey(t, src))
}

func TestInvalidFileKeepsLastGoodKey(t *testing.T) {
	t.Parallel()

	spoil := map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
		},
		"empty": func(t *testing.T, path string) {
			t.Helper()
			writeKey(t, path, "", time.Hour)
		},
		"invalid": func(t *testing.T, path string) {
			t.Helper()
			writeKey(t, path, "half a\nkey", time.Hour)
		},
		"a directory": func(t *testing.T, path string) {
			t.Helper()
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.Mkdir(path, 0o700))
		},
	}

	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "key")
			writeKey(t, path, "key-1", time.Hour)

			src := New(path, 0)
			require.Equal(t, "key-1", readKey(t, src))
			spoil(t, path)

			for range 2 { // the second time from what is remembered of the bad file
				require.Equal(t, "key-1", readKey(t, src))
				require.Error(t, problemOf(src))
			}

			// Not the rejected one, neither by Refresh nor ever after.
			_, err := src.Refresh(t.Context(), credential(secret.KindAPIKey, "key-1"))
			require.Error(t, err)

			_, err = src.Credential(t.Context())
			require.Error(t, err)

			require.NoError(t, os.RemoveAll(path))
			writeKey(t, path, "key-2", time.Hour)
			require.Equal(t, "key-2", readKey(t, src))
			require.NoError(t, problemOf(src))
		})
	}
}

func TestRefreshReadsTheFileWhateverItsMetadataSay(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	writeKey(t, path, "key-1", time.Hour)

	info, err := os.Stat(path)
	require.NoError(t, err)

	src := New(path, 0)
	require.Equal(t, "key-1", readKey(t, src))

	require.NoError(t, os.WriteFile(path, []byte("key-2"), 0o600))
	require.NoError(t, os.Chtimes(path, info.ModTime(), info.ModTime()))

	c, err := src.Refresh(t.Context(), credential(secret.KindAPIKey, "key-1"))
	require.NoError(t, err)
	assert.Equal(t, "key-2", c.Reveal())
}

func TestRefreshReturnsUnchangedKey(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	writeKey(t, path, "key-1", time.Hour)

	src := New(path, 0)
	rejected, err := src.Credential(t.Context())
	require.NoError(t, err)

	c, err := src.Refresh(t.Context(), rejected)
	require.NoError(t, err)
	assert.True(t, c.Equal(rejected))
}

func TestRefreshFallsBackToNewerKey(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	writeKey(t, path, "key-2", time.Hour)

	src := New(path, 0)
	require.Equal(t, "key-2", readKey(t, src))
	require.NoError(t, os.Remove(path))

	c, err := src.Refresh(t.Context(), credential(secret.KindAPIKey, "key-1"))
	require.NoError(t, err)
	assert.Equal(t, "key-2", c.Reveal())
	require.Error(t, problemOf(src))
}

func TestFileIsNotReadAfterContextEnd(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	writeKey(t, path, "key-1", time.Hour)

	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)

	src := New(path, 0)
	_, err := src.Credential(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = src.Refresh(ctx, secret.Credential{})
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, problemOf(src))
	assert.True(t, src.last.IsZero())
}

func TestFileIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "key")
	writeKey(t, path, "key-1", time.Hour)

	src := New(path, 0)

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				if i == 0 {
					_ = os.WriteFile(path+".new", []byte("key-2"), 0o600)
					_ = os.Rename(path+".new", path)
				}

				c, err := src.Credential(t.Context())
				_, refreshErr := src.Refresh(t.Context(), credential(secret.KindAPIKey, "other"))

				if err := errors.Join(err, refreshErr, problemOf(src)); err != nil {
					t.Error(err)
				}

				assert.Contains(t, []string{"key-1", "key-2"}, c.Reveal())
			}
		})
	}

	wg.Wait()
	assert.Equal(t, "key-2", readKey(t, src))
}

func TestFileIsReadAgainOnlyAfterMetadataChange(t *testing.T) {
	t.Parallel()

	long := time.Now().Add(-time.Hour).Truncate(time.Second)
	cases := map[string]struct {
		content string
		mtime   time.Time
		want    string
	}{
		"nothing": {"key-number-2", long, "key-number-1"},
		"size":    {"key-number-02", long, "key-number-02"},
		"time":    {"key-number-2", long.Add(time.Second), "key-number-2"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := filepath.Join(t.TempDir(), "key")
			put := func(content string, mtime time.Time) {
				require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
				require.NoError(t, os.Chtimes(path, mtime, mtime))
			}
			put("key-number-1", long)
			src := New(path, 0)
			c, err := src.Credential(t.Context())
			require.NoError(t, err)
			require.Equal(t, "key-number-1", c.Reveal())
			put(tc.content, tc.mtime)
			c, err = src.Credential(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tc.want, c.Reveal())
		})
	}
}

func TestKeyInFilePathIsNotShown(t *testing.T) {
	t.Parallel()

	const key = "sk_sandbox_0123456789abcdef0123"
	_, err := New("./"+key, 0).Credential(t.Context())
	require.ErrorIs(t, err, secret.ErrNoCredential)
	assert.NotContains(t, err.Error(), key)
}
