package k8sstore_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest/storetest/fleettest"
)

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(guardEnv); ok {
		os.Exit(guard(text))
	}
	if code, ok := fleettest.Worker(openFleet); ok {
		os.Exit(code)
	}
	code := m.Run()
	stopShared()
	if left := ours(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "a goroutine is left behind:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// ours is a goroutine of the store that has not ended, if there is one.
func ours() string {
	for end := time.Now().Add(5 * time.Second); ; <-time.After(20 * time.Millisecond) {
		var b strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		left := ""
		for g := range strings.SplitSeq(b.String(), "\n\n") {
			if strings.Contains(g, "agrenting-go/k8sstore.") {
				left = g
			}
		}
		if left == "" || time.Now().After(end) {
			return left
		}
	}
}

// guardEnv makes the test binary a guard. Its value is the command that it runs.
const guardEnv = "K8SSTORE_TEST_GUARD"

// guard runs a server, and kills it by SIGKILL when stdin ends. So it ends with the
// tests, whatever becomes of them.
func guard(text string) int {
	var args []string
	if err := json.Unmarshal([]byte(text), &args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cmd := exec.Command(args[0], args[1:]...) // #nosec G204 -- a command of the tests
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = os.Environ()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = cmd.Process.Kill()
	}()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// server is a process that is run by a guard.
type server struct {
	stdin io.Closer
	done  chan struct{}
}

// startServer runs a command, whose output goes to a file.
func startServer(log string, args ...string) (*server, error) {
	text, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // #nosec G304 -- a temporary file
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(exe) // #nosec G204 -- this program
	cmd.Env = append(os.Environ(), guardEnv+"="+string(text))
	cmd.Stdout, cmd.Stderr = out, out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{stdin: stdin, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = cmd.Wait()
	}()
	return s, nil
}

// kill ends the server by SIGKILL.
func (s *server) kill() {
	_ = s.stdin.Close()
	<-s.done
}
