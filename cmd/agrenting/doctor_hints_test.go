//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDoctorStoreHints(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		spoil func(t *testing.T, w *world, store string) (use string)
		want  string // %s is the folder of the store
	}{
		"folder is a link": {func(t *testing.T, w *world, store string) string {
			t.Helper()
			require.NoError(t, os.Symlink(store, w.path("link")))
			return w.path("link")
		}, "use the folder itself: --store %s"},
		"record links to another store": {func(t *testing.T, w *world, store string) string {
			t.Helper()
			require.NoError(t, os.Mkdir(w.path("other"), 0o700))
			require.NoError(t, os.Symlink(filepath.Join(store, "key.record"), filepath.Join(w.path("other"), "key.record")))
			return w.path("other")
		}, "use the folder of the file itself: --store %s"},
		"record links to a file": {func(t *testing.T, w *world, store string) string {
			t.Helper()
			require.NoError(t, os.Rename(filepath.Join(store, "key.record"), w.path("elsewhere")))
			require.NoError(t, os.Symlink(w.path("elsewhere"), filepath.Join(store, "key.record")))
			return store
		}, "replace the link with the file: mv "},
		"record is 0644": {func(t *testing.T, _ *world, store string) string {
			t.Helper()
			require.NoError(t, os.Chmod(filepath.Join(store, "key.record"), 0o644)) // #nosec G302 -- the case
			return store
		}, "run: chmod 600 %s/key.record"},
		"newer version": {func(t *testing.T, _ *world, store string) string {
			t.Helper()
			path := filepath.Join(store, "key.record")
			content, err := os.ReadFile(path) // #nosec G304 -- of this test
			require.NoError(t, err)
			newer := bytes.Replace(content, []byte(`{"version":2`), []byte(`{"version":3`), 1)
			require.NotEqual(t, content, newer)
			require.NoError(t, os.WriteFile(path, newer, 0o600)) // #nosec G703 -- of this test
			return store
		}, "keep the store"},
		"newer file": {func(t *testing.T, _ *world, store string) string {
			t.Helper()
			path := filepath.Join(store, "key.record")
			content, err := os.ReadFile(path) // #nosec G304 -- of this test
			require.NoError(t, err)
			newer := bytes.Replace(content, []byte("agrenting-record 2"), []byte("agrenting-record 3"), 1)
			require.NotEqual(t, content, newer)
			require.NoError(t, os.WriteFile(path, newer, 0o600)) // #nosec G703 -- of this test
			return store
		}, "keep the store"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dir, err := filepath.EvalSymlinks(w.dir)
			require.NoError(t, err)
			w.dir = dir
			store := w.stored(t)
			store, err = filepath.EvalSymlinks(store)
			require.NoError(t, err)
			use := c.spoil(t, w, store)
			code, report := w.doctor(t, "--offline", "--store", use)
			assert.NotEqual(t, codeOK, code)
			want := c.want
			if strings.Contains(want, "%s") {
				want = fmt.Sprintf(want, store)
			}
			assert.Contains(t, finding(t, &report, "credential").Hint, want)
			assert.NotContains(t, w.out, "out of the way")
		})
	}
}

// The superuser can read all files, so this test calls the functions directly.
func TestDoctorPermissionHints(t *testing.T) {
	t.Parallel()

	denied := &fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}
	folder := func(t *testing.T, mode fs.FileMode) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "keys")
		require.NoError(t, os.Mkdir(path, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(path, "key.record"), nil, 0o600))
		require.NoError(t, os.Chmod(path, mode))
		t.Cleanup(func() { _ = os.Chmod(path, 0o700) }) // #nosec G302 -- a folder
		return path
	}
	hint := func(store string) string {
		return (&examination{app: &app{globals: globals{Store: store}}}).storeHint(denied)
	}
	store := folder(t, 0o644)
	assert.Equal(t, "run: chmod 700 "+store, hint(store))
	store = folder(t, 0o700)
	require.NoError(t, os.Chmod(filepath.Join(store, "key.record"), 0o200))
	assert.Equal(t, "run: chmod 600 "+store+"/key.record", hint(store))

	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, nil, 0o200))
	assert.Equal(t, "run: chmod 600 "+key, readHint(key))
	assert.Contains(t, readHint(key+".missing"), "a folder above")

	others := "/"
	if os.Geteuid() == 0 {
		others = folder(t, 0o700)
		require.NoError(t, os.Chown(others, 65534, -1))
	}
	assert.Contains(t, hint(others), "run: sudo chown -R \"$(id -un)\" "+others)
	assert.Contains(t, readHint(others), "run: sudo chown \"$(id -un)\" "+others)
}

func TestDoctorReportsStoreOfOtherAgent(t *testing.T) {
	t.Parallel()

	for name, args := range map[string][]string{"online": nil, "offline": {"--offline"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			store := w.stored(t)
			args := append(slices.Clip(args), "--store", store)
			code, _ := w.doctor(t, append(args, "--agent", w.agent.ID)...)
			assert.Equal(t, codeOK, code)
			code, report := w.doctor(t, append(args, "--agent", w.other.ID)...)
			assert.Equal(t, codeCredential, code)
			f := finding(t, &report, "store")
			assert.Equal(t, checkFail, f.Status)
			assert.Contains(t, f.Detail, "the agent "+w.agent.ID+", but --agent is "+w.other.ID)
			assert.Contains(t, f.Hint, "leave out --agent")
		})
	}
}

func TestDoctorUserTokenTypedAsKey(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varAPIKey] = w.token
	code, _ := w.doctor(t)
	require.Equal(t, codeOK, code)
	w.env[varType] = "api_key"
	_, report := w.doctor(t)
	assert.Equal(t, checkWarn, finding(t, &report, "credential").Status)
	assert.Equal(t, "unset AGRENTING_CREDENTIAL_TYPE, or set it to user_token", finding(t, &report, "platform").Hint)
	assert.NotContains(t, w.out, w.token)
	delete(w.env, varType)
	w.env[varAPIKey] = "ap_0000000000000000000000"
	code, report = w.doctor(t, "--type", "api_key")
	assert.Equal(t, codeRefused, code)
	assert.Equal(t, "leave out --type, or use --type user_token", finding(t, &report, "platform").Hint)
	w.env[varAPIKey] = w.key.Secret
	_, report = w.doctor(t, "--type", "api_key")
	assert.Equal(t, checkOK, finding(t, &report, "credential").Status)
}

func TestLinkedSibling(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ base, text, want string }{
		"www":             {"https://agrenting.com", `{"next":"https://www.agrenting.com/api/v1/x"}`, "https://www.agrenting.com"},
		"apex":            {"https://www.agrenting.com", `{"next":"https://agrenting.com/api"}`, "https://agrenting.com"},
		"path":            {"https://agrenting.com/base", `https://www.agrenting.com`, "https://www.agrenting.com"},
		"escaped slash":   {"https://agrenting.com", `{"next":"https:\/\/x https://www.agrenting.com\/api"}`, "https://www.agrenting.com"},
		"second link":     {"https://agrenting.com", `https://www.agrenting.com.example https://www.agrenting.com/`, "https://www.agrenting.com"},
		"longer name":     {"https://agrenting.com", `https://www.agrenting.com.example/`, ""},
		"another port":    {"https://agrenting.com", `https://www.agrenting.com:8443/`, ""},
		"another scheme":  {"https://agrenting.com", `http://www.agrenting.com/`, ""},
		"the same":        {"https://agrenting.com", `https://agrenting.com/api`, ""},
		"not a URL":       {"agrenting.com", `https://www.agrenting.com/`, ""},
		"port in the URL": {"http://localhost:80", `http://www.localhost:80/`, "http://www.localhost:80"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, linkedSibling(c.base, c.text))
		})
	}
}

func TestDoctorLinksToSibling(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ path, location string }{
		"redirect": {healthPath, "/elsewhere"},
		"link":     {probePath, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sibling string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch {
				case r.URL.Path == c.path && c.location != "":
					w.Header().Set("Location", sibling+c.location)
					w.WriteHeader(http.StatusMovedPermanently)
				case r.URL.Path == c.path:
					_, _ = fmt.Fprintf(w, `{"data":[{"url":%q}]}`, sibling+"/api/v1/files/1")
				default:
					_, _ = w.Write([]byte(`{"data":[]}`))
				}
			}))
			t.Cleanup(srv.Close)
			sibling = strings.Replace(srv.URL, "http://", "http://www.", 1)
			w := &world{env: map[string]string{varURL: srv.URL, varAPIKey: "made-up-key"}}
			_, report := w.doctor(t)
			f := finding(t, &report, "links")
			assert.Equal(t, checkWarn, f.Status)
			assert.Contains(t, f.Hint, "--url to "+sibling)
		})
	}
}
