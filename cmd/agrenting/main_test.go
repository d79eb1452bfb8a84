package main

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestMain(m *testing.M) {
	testscript.Main(hangups{m}, map[string]func(){"agrenting": main})
}

// hangups runs the tests with SIGHUP as it usually is. Under nohup it is ignored, which the
// programs that a test starts would inherit. A signal that is caught is not ignored, and is at
// its default in these programs.
type hangups struct{ *testing.M }

func (h hangups) Run() int {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	return h.M.Run()
}

func TestScripts(t *testing.T) {
	t.Parallel()

	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("NO_PROXY", "*")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"platform": platform,
			"fault":    fault,
			"drop":     drop,
			"heal":     heal,
			"live":     live,
			"age":      age,
			"revoke":   revoke,
			"code":     code,
			"shows":    shows,
			"shape":    shape,
			"waitfile": waitFile,
			"nothing":  nothing,
			"mode":     mode,
			"save":     save,
		},
	})
}

// registry finds the platform of a script, since scripts run in parallel.
type registry struct{ all sync.Map }

var servers registry

func (r *registry) put(ts *testscript.TestScript, s *agrentingtest.Server) { r.all.Store(ts, s) }

func (r *registry) get(ts *testscript.TestScript) *agrentingtest.Server {
	s, ok := r.all.Load(ts)
	if !ok {
		ts.Fatalf("there is no platform")
	}
	return s.(*agrentingtest.Server) //nolint:errcheck // nothing else is put in
}

// platform starts an embedded platform and sets variables for its agents and credentials.
// The key is in AGRENTING_API_KEY unless the argument bare is given.
func platform(ts *testscript.TestScript, _ bool, args []string) {
	var opts []agrentingtest.Option
	bare := false
	for _, a := range args {
		switch a {
		case "bare":
			bare = true
		case "unlimited":
			opts = append(opts, agrentingtest.WithoutRateLimits())
		case "docs":
			opts = append(opts, agrentingtest.WithSessionShape(agrentingtest.ShapeBoth))
		case "skewed":
			opts = append(opts, agrentingtest.WithClockSkew(time.Hour))
		case "tls":
			opts = append(opts, agrentingtest.WithTLS())
		case "odd":
			opts = append(opts, agrentingtest.WithRotateKeyField("marvel"))
		default:
			ts.Fatalf("platform: %q is unknown", a)
		}
	}
	srv := agrentingtest.NewServer(opts...)
	ts.Defer(srv.Close)
	servers.put(ts, srv)
	if c := srv.Certificate(); c != nil {
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
		ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), block, 0o600))
		ts.Setenv("CA", ts.MkAbs("ca.pem"))
	}
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}})
	second := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scout"})
	toy := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Toy", Sandbox: true})
	key := srv.NewKey(agent.ID)
	for name, value := range map[string]string{
		"URL": srv.URL, "AGENT": agent.ID, "AGENT2": second.ID, "TOY": toy.ID, "KEY": key.Secret, "KEYID": key.ID,
		"TOKEN": srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "all"}).Secret, "TOYKEY": srv.NewKey(toy.ID).Secret,
		"AGRENTING_URL": srv.URL,
	} {
		ts.Setenv(name, value)
	}
	if !bare {
		ts.Setenv("AGRENTING_API_KEY", key.Secret)
	}
}

// fault makes a route fail: fault 'GET /api/v1/health' 503.
func fault(ts *testscript.TestScript, _ bool, args []string) {
	status, err := strconv.Atoi(args[1])
	ts.Check(err)
	servers.get(ts).Fault(args[0], agrentingtest.Status(status, "").Always())
}

// drop makes a route do its work without a response: drop 'POST /api/v1/user/tokens'.
func drop(ts *testscript.TestScript, _ bool, args []string) {
	servers.get(ts).Fault(args[0], agrentingtest.DropAfter().Always())
}

// heal ends all faults.
func heal(ts *testscript.TestScript, _ bool, _ []string) { servers.get(ts).ClearFaults() }

// live checks how many live keys an agent has: live $AGENT 2.
func live(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	if n := len(servers.get(ts).LiveKeys(args[0])); n != want {
		ts.Fatalf("the agent has %d live keys, not %d", n, want)
	}
}

// age makes a pending call older: age new.pending 24h.
func age(ts *testscript.TestScript, _ bool, args []string) {
	by, err := time.ParseDuration(args[1])
	ts.Check(err)
	var call pendingCall
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &call))
	call.Began = time.Now().Add(-by)
	text, err := json.Marshal(call)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// revoke revokes the key.
func revoke(ts *testscript.TestScript, _ bool, _ []string) {
	servers.get(ts).RevokeKey(ts.Getenv("KEYID"))
}

// nothing checks that no request has arrived, or the given number: nothing 'POST *' 2.
func nothing(ts *testscript.TestScript, _ bool, args []string) {
	want := 0
	if len(args) == 2 {
		want, _ = strconv.Atoi(args[1])
	}
	if n := servers.get(ts).Count(args[0]); n != want {
		ts.Fatalf("%d requests of %s came, not %d", n, args[0], want)
	}
}

// looksSecret matches text that may be a secret of the embedded platform.
var looksSecret = regexp.MustCompile(`\b[0-9a-f]{40}\b|\bap_[0-9a-z_]{16,}|sk_sandbox_[0-9a-f]{8,}|(^|[^A-Za-z0-9_/+.-])[A-Za-z0-9_-]{43}($|[^A-Za-z0-9_/+.=-])`)

// code runs a command, which must end with an exit code and print no secret.
func code(ts *testscript.TestScript, neg bool, args []string) {
	shows(ts, neg, args)
	for _, name := range []string{"stdout", "stderr"} {
		if s := looksSecret.FindString(ts.ReadFile(name)); s != "" {
			ts.Fatalf("%s shows a secret: %q", name, s)
		}
	}
}

// shows is like code, for commands that should print a secret.
func shows(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		e, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = e.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, not %d", got, want)
	}
}

// shape writes names and types of JSON to a file: shape stdout file.
func shape(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s is not JSON: %v", args[0], err)
	}
	lines := map[string]bool{}
	flatten("", v, lines)
	var all []string
	for l := range lines {
		all = append(all, l)
	}
	slices.Sort(all)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(all, "\n")+"\n"), 0o600))
}

func flatten(path string, v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, m := range v {
			flatten(path+"."+name, m, into)
		}
	case []any:
		for _, m := range v {
			flatten(path+"[]", m, into)
		}
		if len(v) == 0 {
			into[path+"[]"] = true
		}
	case nil:
		into[path+" null"] = true
	default:
		into[fmt.Sprintf("%s %T", path, v)] = true
	}
}

func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Lstat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s", args[0], got)
	}
}

// save sets a variable to the match of a regular expression in a file:
// save stdout NAME '"id": "(.*)"'.
func save(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[0]))
	if m == nil {
		ts.Fatalf("nothing matches %q", args[2])
	}
	ts.Setenv(args[1], m[len(m)-1])
}

func waitFile(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); <-tick.C {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s does not come", args[0])
}
