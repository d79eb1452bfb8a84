//go:build unix

package session_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// A process that is stopped while it exchanges the key for all, as by a debugger
// or a frozen container, costs the others no more than 7 s.
func TestStoppedHolderDoesNotDelayExchange(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer()
	defer srv.Close()
	key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "w"}).ID)
	folder := filepath.Join(t.TempDir(), "sessions")
	exe, err := os.Executable()
	require.NoError(t, err)
	srv.Fault(sdktest.RouteAuthenticate, agrentingtest.Delay(time.Minute))

	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), sharedWorkerVar+"="+srv.URL+"|"+key.Secret+"|"+folder)
	start, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	_, err = fmt.Fprintln(start)
	require.NoError(t, err)
	store, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	c := sdktest.ClientOf(t, srv, agrenting.WithCredential(agrenting.APIKey(key.Secret)), agrenting.WithSession(agrenting.SessionPolicy{Store: store}))
	slot := sdktest.SessionSlot(c, store, agrenting.APIKey(key.Secret))
	require.Eventually(t, func() bool {
		e, err := slot.Load(t.Context())
		return err == nil && e.Lease.Holder != ""
	}, 10*time.Second, 5*time.Millisecond, "the process does not exchange")
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus
	_, err = syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil)
	require.NoError(t, err)
	require.True(t, status.Stopped())
	srv.ClearFaults()

	began := time.Now()
	_, err = c.Do(t.Context(), "GET", "/api/v1/agents", nil, nil)
	require.NoError(t, err)
	assert.Less(t, time.Since(began), 7*time.Second)
	assert.GreaterOrEqual(t, time.Since(began), time.Second, "the lease is respected")
}
