package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// world is a platform with a user and an agent, and an environment to run in.
type world struct {
	srv           *agrentingtest.Server
	user          *agrentingtest.User
	agent, other  *agrentingtest.Agent
	key           agrentingtest.Key
	token         string
	env           map[string]string
	out, err, dir string
}

func newWorld(t *testing.T, opts ...agrentingtest.Option) *world {
	t.Helper()
	srv := agrentingtest.NewServer(opts...)
	t.Cleanup(srv.Close)
	user := srv.NewUser("Ada")
	w := &world{srv: srv, user: user, agent: srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe"}), dir: t.TempDir()}
	w.other = srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scout"})
	w.key = srv.NewKey(w.agent.ID)
	w.token = srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "all"}).Secret
	w.env = map[string]string{varURL: srv.URL, varAPIKey: w.key.Secret}
	return w
}

// path is a file of the world's folder.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// run runs a command in-process.
func (w *world) run(t *testing.T, args ...string) int {
	t.Helper()
	var out, errs strings.Builder
	code := run(t.Context(), args, streams{
		in: strings.NewReader(""), out: &out, err: &errs,
		lookup:  func(name string) (string, bool) { v, ok := w.env[name]; return v, ok },
		environ: func() []string { return nil },
	})
	w.out, w.err = out.String(), errs.String()
	return code
}

// doctor runs doctor and checks what every report must satisfy.
func (w *world) doctor(t *testing.T, args ...string) (int, jsonDoctor) {
	t.Helper()
	code := w.run(t, append([]string{"doctor", "--json"}, args...)...)
	var report jsonDoctor
	require.NoError(t, json.Unmarshal([]byte(w.out), &report), w.err)
	bad := 0
	for _, c := range report.Checks {
		if c.Status == checkWarn || c.Status == checkFail {
			bad++
			assert.NotEmpty(t, c.Hint, "%s: %s", c.Name, c.Detail)
			assert.NotContains(t, c.Hint, "agrenting doctor", c.Detail)
		}
	}
	assert.Equal(t, code == codeOK, report.OK)
	assert.Equal(t, code, w.run(t, append([]string{"doctor"}, args...)...))
	assert.Equal(t, bad > 0, !strings.Contains(w.out, "No problems found"), w.out)
	return code, report
}

// finding returns the worst finding with a name.
func finding(t *testing.T, r *jsonDoctor, name string) jsonCheck {
	t.Helper()
	worst := jsonCheck{}
	rank := map[string]int{"": 0, checkSkip: 1, checkOK: 2, checkWarn: 3, checkFail: 4}
	for _, c := range r.Checks {
		if c.Name == name && rank[c.Status] > rank[worst.Status] {
			worst = c
		}
	}
	require.NotEmpty(t, worst.Name, "no finding %s in %+v", name, r.Checks)
	return worst
}

func TestDoctorDetectsForeignServer(t *testing.T) {
	t.Parallel()

	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{kind}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		code int
		hint string
	}{
		"captive portal":       {answer(200, "text/html; charset=utf-8", "<html>Welcome</html>"), codeFailure, "portal"},
		"firewall":             {answer(403, "text/html", "<html>Blocked</html>"), codeRefused, "firewall"},
		"JSON of a firewall":   {answer(403, "application/json", "{}"), codeRefused, "firewall"},
		"login of a proxy":     {answer(401, "text/html", "<html>Log in</html>"), codeRefused, "proxy"},
		"another server's 404": {answer(404, "text/html", "<html>nothing</html>"), codeNotFound, "--url"},
		"nothing":              {answer(200, "application/json", ""), codeFailure, "--url"},
		"no content":           {answer(204, "", ""), codeFailure, "--url"},
		"another API":          {answer(200, "application/json", `{"hello":"world"}`), codeFailure, "--url"},
		"HTML called JSON":     {answer(200, "application/json", "<html></html>"), codeFailure, "--url"},
		"TLS port":             {answer(400, "text/plain", "Client sent an HTTP request to an HTTPS server."), codeFailure, "write https:"},
		"login page elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://login.example.com/", http.StatusFound)
		}, codeUsage, "log in there"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(c.h)
			t.Cleanup(srv.Close)
			w := &world{env: map[string]string{varURL: srv.URL, varAPIKey: "made-up-key"}}
			code, report := w.doctor(t)
			assert.Equal(t, c.code, code)
			f := finding(t, &report, "platform")
			assert.Equal(t, checkFail, f.Status, f.Detail)
			assert.Contains(t, f.Hint, c.hint)
			assert.NotContains(t, f.Hint, "put a valid one")
			if name != "another API" { // that may well have such a path
				assert.Equal(t, checkWarn, finding(t, &report, "connection").Status)
			}
			assert.NotContains(t, w.out, "recognizes the credential")

			assert.Equal(t, c.code, w.run(t, "whoami"))
			assert.Contains(t, w.err, c.hint)
			w.env[varAgentID] = "00000000-0000-4000-8000-000000000000"
			code, _ = w.doctor(t)
			assert.Equal(t, c.code, code, "nor is it the agent's fault")
		})
	}
}

func TestDoctorSeesAPathTooMany(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varURL] += "/api/v1"
	code, report := w.doctor(t)
	assert.Equal(t, codeNotFound, code)
	assert.Equal(t, checkFail, finding(t, &report, "platform").Status)
	assert.Contains(t, finding(t, &report, "platform").Hint, "without /api/v1")
	assert.Contains(t, finding(t, &report, "connection").Hint, "without /api/v1")
	assert.Equal(t, codeNotFound, w.run(t, "whoami"))
	assert.Contains(t, w.err, "without /api/v1")
}

func TestDoctorReportsClockSkew(t *testing.T) {
	t.Parallel()

	for skew, want := range map[time.Duration]string{7 * time.Hour: "7 h ahead of", -50 * time.Hour: "2 days behind", 45 * time.Second: "s ahead of"} {
		w := newWorld(t, agrentingtest.WithClockSkew(skew))
		code, report := w.doctor(t)
		assert.Equal(t, codeOK, code)
		assert.Equal(t, checkWarn, finding(t, &report, "clock").Status)
		assert.Contains(t, finding(t, &report, "clock").Detail, want)
		assert.Equal(t, 1, report.Warnings)
		assert.Contains(t, w.out, "No failure, 1 warning, see above.")
	}
	assert.Equal(t, "1 h 30 min", span(90*time.Minute))
	assert.Equal(t, "3 min", span(3*time.Minute))
}

func TestDoctorReadsNoClockFromCachedResponses(t *testing.T) {
	t.Parallel()

	w := newWorld(t, agrentingtest.WithClockSkew(-7*time.Hour))
	w.srv.Fault("GET /api/v1/health", agrentingtest.SetHeader("Age", "25200").Always())
	code, report := w.doctor(t)
	assert.Equal(t, codeOK, code)
	assert.Equal(t, checkSkip, finding(t, &report, "clock").Status)
	assert.Contains(t, finding(t, &report, "clock").Detail, "from a cache")
	assert.Nil(t, report.Connection.ClockSkew)
}

func TestAWrongAgentIsNamed(t *testing.T) {
	t.Parallel()

	base := newWorld(t)
	unknown := "00000000-0000-4000-8000-000000000000"
	for name, c := range map[string]struct {
		secret, agent string
		code          int
	}{
		"key, no id":        {base.key.Secret, "nonsense", codeFailure},
		"key, unknown":      {base.key.Secret, unknown, codeRefused},
		"key, another":      {base.key.Secret, base.other.ID, codeRefused},
		"user, no id":       {base.token, "nonsense", codeFailure},
		"user, unknown":     {base.token, unknown, codeNotFound},
		"user, no scope":    {base.srv.NewToken(base.user.ID, agrentingtest.TokenConfig{Name: "few", Scopes: []string{"agents:read"}}).Secret, unknown, codeNotFound},
		"user, another one": {base.token, base.srv.NewAgent(base.srv.NewUser("Bob"), agrentingtest.AgentConfig{Name: "His"}).ID, codeRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{srv: base.srv, env: map[string]string{varURL: base.srv.URL, varAPIKey: c.secret, varAgentID: c.agent}}
			code, report := w.doctor(t)
			assert.Equal(t, c.code, code)
			f := finding(t, &report, "agent")
			assert.Equal(t, checkFail, f.Status)
			assert.Contains(t, f.Detail, c.agent)
			assert.Equal(t, checkOK, finding(t, &report, "platform").Status)
			hint := "leave out " + varAgentID
			if strings.HasPrefix(name, "user") {
				hint = "agrenting agents mine lists yours"
			}
			assert.Contains(t, f.Hint, hint)

			assert.Equal(t, c.code, w.run(t, "whoami"))
			assert.Contains(t, w.err, hint)
			assert.Empty(t, w.out)
			if strings.HasPrefix(name, "user") {
				assert.Equal(t, codeOK, w.run(t, "agents", "mine"), "no dead end: %s", w.err)
			}
			delete(w.env, varAgentID)
			assert.Equal(t, c.code, w.run(t, "whoami", "--agent", c.agent))
			assert.Contains(t, w.err, strings.ReplaceAll(hint, varAgentID, "--agent"))
		})
	}
}

func TestAUserNeedsNoAgent(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varAPIKey] = w.token
	code, report := w.doctor(t)
	assert.Equal(t, codeOK, code)
	assert.Equal(t, checkSkip, finding(t, &report, "agent").Status)
	assert.Contains(t, w.out, "No problems found.")
	assert.Equal(t, codeOK, w.run(t, "whoami"))
	w.env[varAgentID] = w.agent.ID
	code, report = w.doctor(t)
	assert.Equal(t, codeOK, code)
	assert.Equal(t, checkOK, finding(t, &report, "platform").Status)
}

func TestReadersDoNotFillAStore(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{
		{"whoami"},
		{"keys", "list"},
		{"keys", "create", "--show"},
		{"keys", "revoke", "x", "-y"},
		{"agents", "list"},
		{"agents", "get", "x"},
		{"agents", "mine"},
		{"tokens", "list"},
		{"request", "GET", "/api/v1/agents"},
		{"login"},
		{"logout"},
	} {
		w := newWorld(t)
		w.env[varAgentID] = w.agent.ID
		missing, empty := filepath.Join(w.dir, "folder", "typo"), t.TempDir()
		for _, path := range []string{missing, empty} {
			assert.Equal(t, codeCredential, w.run(t, append(args, "--store", path)...), args)
			assert.Contains(t, w.err, "has no key yet; agrenting keys rotate --store "+path+" saves the key in it and rotates it", args)
		}
		assert.NoDirExists(t, filepath.Dir(missing), args)
		entries, err := os.ReadDir(empty)
		require.NoError(t, err)
		assert.Empty(t, entries, args)
		assert.Empty(t, w.srv.Requests(), args)
	}
	for _, args := range [][]string{nil, {"--offline"}} {
		w := newWorld(t)
		path := filepath.Join(w.dir, "folder", "typo")
		code, report := w.doctor(t, append(args, "--store", path)...)
		assert.Equal(t, codeCredential, code)
		assert.Equal(t, checkFail, finding(t, &report, "store").Status)
		assert.Contains(t, finding(t, &report, "store").Hint, "agrenting keys rotate --store "+path)
		assert.Equal(t, checkOK, finding(t, &report, "credential").Status, "the key that would fill it is examined")
		assert.NoDirExists(t, filepath.Dir(path))
	}
}

func TestDoctorSeesAnUnfinishedRotation(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct{ holder, want string }{
		"left to the next attempt": {"", "no process is working on it"},
		"under way or killed":      {"another", "the process another is working on it, or was killed; another process takes over if it writes nothing for 20s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			path := w.stored(t)
			store, err := agrenting.FileStore(path)
			require.NoError(t, err)
			require.NoError(t, unfinish(t.Context(), store, agrenting.StageIssue, c.holder, 20*time.Second))
			before, err := os.ReadFile(filepath.Join(path, "key.record"))
			require.NoError(t, err)
			code, report := w.doctor(t, "--offline", "--store", path)
			assert.Equal(t, codeOK, code)
			f := finding(t, &report, "store")
			assert.Equal(t, checkWarn, f.Status)
			assert.Contains(t, f.Detail, "at the stage issue; ")
			assert.Contains(t, f.Detail, c.want)
			assert.Equal(t, "agrenting keys rotate --store "+path+" finishes it", f.Hint)
			after, err := os.ReadFile(filepath.Join(path, "key.record"))
			require.NoError(t, err)
			assert.Equal(t, string(before), string(after))
		})
	}
}

func TestDoctorChecksKindOfKeyFile(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	delete(w.env, varAPIKey)
	w.env[varKeyFile] = w.dir
	code, report := w.doctor(t)
	assert.Equal(t, codeCredential, code)
	f := finding(t, &report, "key file")
	assert.Equal(t, checkFail, f.Status)
	assert.Equal(t, w.dir+" is a folder", f.Detail)
	assert.NotContains(t, finding(t, &report, "credential").Hint, "put the credential into", "it is a folder")
	assert.NotContains(t, w.out, "chmod")
	if runtime.GOOS != "windows" {
		w.env[varKeyFile] = "/dev/null"
		code, _ = w.doctor(t)
		assert.Equal(t, codeCredential, code)
		assert.NotContains(t, w.out, "chmod")
	}
	for content, want := range map[string]string{
		"":                                      "alone and on one line",
		"two words":                             "alone and on one line",
		"AGRENTING_API_KEY=" + w.key.Secret:     bareKey,
		"export X_KEY=" + w.key.Secret:          bareKey,
		"\ufeffkey=" + w.key.Secret + "\nA=b\n": bareKey,
	} {
		path := w.path("key")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		w.env[varKeyFile] = path
		code, _ = w.doctor(t)
		assert.NotEqual(t, codeOK, code)
		assert.Contains(t, w.out, want)
	}
	for _, key := range []string{w.key.Secret, "YWJjZGVmZ2hpamtsbW5vcA==", "YWJjZGVmZ2hpamtsbW5vcA=\n"} {
		assert.False(t, assignment.MatchString(key))
	}
}

func TestDoctorExplainsConfigurationErrors(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		variable, value, finding, hint string
	}{
		"environment": {varEnv, "moon", "configuration", "production or sandbox"},
		"type":        {varType, "moon", "configuration", "api_key, user_token or session"},
		"no URL":      {varURL, "moon", "url", agrenting.DefaultBaseURL},
		"scheme":      {varURL, "ftp://agrenting.com", "url", agrenting.DefaultBaseURL},
		"plain http":  {varURL, "http://agrenting.com", "url", "write https:"},
		"agent":       {varAgentID, "two words", "configuration", "UUID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.env[c.variable] = c.value
			code, report := w.doctor(t)
			assert.Equal(t, codeUsage, code)
			f := finding(t, &report, c.finding)
			assert.Equal(t, checkFail, f.Status)
			assert.Contains(t, f.Hint, c.hint)
			if c.finding == "url" {
				assert.NotContains(t, w.out, "FAIL configuration", "it is said once")
				assert.NotContains(t, w.out, "ok   url")
			}
		})
	}
}

func TestDoctorExplainsConnectionErrors(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varURL] = "https" + strings.TrimPrefix(w.srv.URL, "http")
	code, report := w.doctor(t)
	assert.Equal(t, codeNetwork, code)
	assert.Contains(t, finding(t, &report, "connection").Hint, "write http:")

	secure := newWorld(t, agrentingtest.WithTLS())
	secure.env[varURL] = "http" + strings.TrimPrefix(secure.srv.URL, "https")
	code, report = secure.doctor(t)
	assert.NotEqual(t, codeOK, code)
	assert.Contains(t, finding(t, &report, "connection").Hint, "write https:")

	slow := newWorld(t)
	slow.srv.Fault("GET /api/v1/health", agrentingtest.Delay(time.Minute).Always())
	code, report = slow.doctor(t, "--timeout", "50ms")
	assert.Equal(t, codeNetwork, code)
	assert.Equal(t, "no response within 50ms; see --timeout", finding(t, &report, "connection").Detail)
	assert.Contains(t, finding(t, &report, "connection").Hint, "longer --timeout")

	gone := newWorld(t)
	gone.srv.Fault("GET /api/v1/health", agrentingtest.DropBefore().Always())
	code, report = gone.doctor(t)
	assert.Equal(t, codeNetwork, code)
	assert.Contains(t, finding(t, &report, "connection").Hint, "firewall")
}

func TestDoctorNamesTheCommandForAnUnsafeStore(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("modes say nothing there")
	}
	for name, spoil := range map[string]func(folder string) (path, command string){
		"folder": func(folder string) (string, string) { return folder, "chmod 700 " },
		"above":  func(folder string) (string, string) { return filepath.Dir(folder), "chmod go-w " },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			dir, err := filepath.EvalSymlinks(w.dir) // the folders of macOS have links above them
			require.NoError(t, err)
			store := filepath.Join(dir, "above", "keys")
			require.NoError(t, os.MkdirAll(store, 0o700))
			path, command := spoil(store)
			require.NoError(t, os.Chmod(path, 0o777))
			code, report := w.doctor(t, "--offline", "--store", store)
			assert.NotEqual(t, codeOK, code)
			f := finding(t, &report, "credential")
			assert.Equal(t, checkFail, f.Status)
			assert.Contains(t, f.Detail, "(mode 0777)")
			assert.NotContains(t, f.Detail, "Run")
			assert.Equal(t, "run: "+command+path, f.Hint)
		})
	}
}

func TestCommandsOfDoctorCanBePasted(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/run/key": "/run/key", "/my keys/key": "'/my keys/key'", "/it's;x": `'/it'\''s;x'`,
	} {
		assert.Equal(t, want, shellQuoted(path))
	}
}
