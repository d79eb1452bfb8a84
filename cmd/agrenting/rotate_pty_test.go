//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// rotating is a platform and a store for keys rotate at a terminal.
type rotating struct {
	t     *testing.T
	srv   *agrentingtest.Server
	agent *agrentingtest.Agent
	key   agrentingtest.Key
	path  string
}

func newRotating(t *testing.T) *rotating {
	t.Helper()
	r := &rotating{t: t, srv: agrentingtest.NewServer(), path: filepath.Join(t.TempDir(), "keys")}
	t.Cleanup(r.srv.Close)
	r.agent = r.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	r.key = r.srv.NewKey(r.agent.ID)
	return r
}

// interruptedAt presses Ctrl-C once the terminal shows moment.
func (r *rotating) interruptedAt(moment string, args ...string) (output string, code int) {
	r.t.Helper()
	env := []string{"AGRENTING_AGENT_ID=" + r.agent.ID}
	args = append([]string{"keys", "rotate", "--store", r.path, "--yes"}, args...)
	return terminal(r.t, r.srv, r.key.Secret, env, moment, "\x03", args...)
}

// interruptedAtRevoke presses Ctrl-C once the terminal shows that the old key is going to be
// revoked. The platform does not respond before the interruption is noticed.
func (r *rotating) interruptedAtRevoke(env []string, args ...string) (output string, code int) {
	r.t.Helper()
	return converse(r.t, r.srv, r.key.Secret, append(env, "AGRENTING_AGENT_ID="+r.agent.ID), []turn{
		{prompt: "rotating: revoke", answer: "\x03"},
		{prompt: "finishing the current step", then: r.holdRevocation()},
	}, append([]string{"keys", "rotate", "--yes"}, args...)...)
}

// holdRevocation lets the platform wait with the revocation of keys until release is called.
func (r *rotating) holdRevocation() (release func()) {
	r.t.Helper()
	_, release = holdRequests(r.t, r.srv, revokes)
	return release
}

// revokes reports whether a request revokes a key.
func revokes(r *http.Request) bool {
	return r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/credentials/")
}

func (r *rotating) store() agrenting.Store {
	r.t.Helper()
	store, err := agrenting.FileStore(r.path)
	require.NoError(r.t, err)
	return store
}

func (r *rotating) state() agrenting.KeyState {
	r.t.Helper()
	state, err := agrenting.LoadKeyState(r.t.Context(), r.store())
	require.NoError(r.t, err)
	return state
}

// await waits until the store has an unfinished rotation that satisfies a condition.
func (r *rotating) await(wanted func(agrenting.UnfinishedRotation) bool) {
	r.t.Helper()
	store := r.store()
	require.Eventually(r.t, func() bool {
		state, err := agrenting.LoadKeyState(r.t.Context(), store) // there is none at first
		return err == nil && state.Unfinished != nil && wanted(*state.Unfinished)
	}, 20*time.Second, 5*time.Millisecond)
}

func (r *rotating) at(stage agrenting.Stage) {
	r.t.Helper()
	r.await(func(in agrenting.UnfinishedRotation) bool { return in.Stage == stage })
}

func TestAnInterruptedRotationIsFinishedAndSaysSo(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	out, code := r.interruptedAtRevoke(nil, "--store", r.path)
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, "interrupted; finishing the current step")
	assert.Regexp(t, `note\s*\S* +interrupted, but finished`, out)
	assert.Equal(t, 1, strings.Count(out, "finishing the current step"), "it is told once")
	state := r.state()
	assert.Nil(t, state.Unfinished)
	assert.EqualValues(t, 2, state.Generation)
	assert.Contains(t, out, state.Credential.Fingerprint())
	assert.Contains(t, out, agrenting.APIKey(r.key.Secret).Fingerprint(), "the key that it replaced")
	assert.False(t, r.srv.KeyAlive(r.key.Secret))
}

func TestAnInterruptedRotationIsFinishedForScriptsToo(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	release := r.holdRevocation()
	cmd := exec.CommandContext(t.Context(), "agrenting", "keys", "rotate", "--store", r.path, "--yes", "--json", "--show")
	cmd.Env = []string{
		"AGRENTING_URL=" + r.srv.URL, "AGRENTING_API_KEY=" + r.key.Secret, "AGRENTING_AGENT_ID=" + r.agent.ID,
		"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	r.at(agrenting.StageRevoke)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	release()
	require.NoError(t, cmd.Wait(), out.String())
	var got jsonRotation
	require.NoError(t, json.Unmarshal(out.Bytes(), &got), out.String())
	state := r.state()
	assert.True(t, got.Interrupted)
	assert.Equal(t, state.Credential.Fingerprint(), got.To)
	assert.Equal(t, agrenting.APIKey(r.key.Secret).Fingerprint(), got.From)
	assert.Equal(t, state.Credential.Reveal(), got.Secret)
	assert.Nil(t, state.Unfinished)
}

func TestInterruptedRotationNamesKeyInUse(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("DELETE /api/v1/agents/{id}/credentials/{key}", agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	out, code := r.interruptedAtRevoke(nil, "--store", r.path)
	assert.Equal(t, codeInterrupted, code, out)
	state := r.state()
	require.NotNil(t, state.Unfinished)
	assert.Contains(t, out, "interrupted at the stage revoke; the key "+state.Credential.Fingerprint()+" is in use")
	assert.Contains(t, out, "run it again to finish")

	r.srv.ClearFaults()
	out, code = r.interruptedAt("never", "--json")
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, `"recovered": true`)
	assert.False(t, r.srv.KeyAlive(r.key.Secret))
}

func TestWaitForOtherRotationIsShownAndCancelable(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	store := fill(t, r.path, r.srv.URL, r.agent.ID, r.key)
	require.NoError(t, unfinish(t.Context(), store, agrenting.StageIssue, "another", time.Minute))
	began := time.Now()
	out, code := r.interruptedAt("another process is rotating the key")
	assert.Equal(t, codeInterrupted, code, out)
	assert.Less(t, time.Since(began), 30*time.Second, "it does not wait for the lease, nor for Close's patience")
	assert.Regexp(t, `if it was killed, this run continues the rotation in (59s|1m0s)`, out)
	assert.Contains(t, out, "this run changed nothing")
	assert.Equal(t, "another", r.state().Unfinished.Holder)
	assert.True(t, r.srv.KeyAlive(r.key.Secret))
}

// TestKeyRefusedByStoreGoesToRescueFile rotates in place, so that the old key is revoked
// when the new one is issued. The store's folder has become a file.
func TestKeyRefusedByStoreGoesToRescueFile(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	reached, release := hold(t, r.srv, "/rotate-key")
	cmd := exec.CommandContext(t.Context(), "agrenting", "keys", "rotate", "--store", r.path, "--yes", "--strategy", "inplace")
	cmd.Env = []string{
		"AGRENTING_URL=" + r.srv.URL, "AGRENTING_API_KEY=" + r.key.Secret, "AGRENTING_AGENT_ID=" + r.agent.ID,
		"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.RemoveAll(r.path))
	require.NoError(t, os.WriteFile(r.path, nil, 0o600))
	release()
	require.Error(t, cmd.Wait())
	kept, err := filepath.Glob(r.path + ".rescued-*")
	require.NoError(t, err)
	require.Len(t, kept, 1, out.String())
	assert.Contains(t, out.String(), "the new key is saved: it is in "+kept[0])
	assert.NotContains(t, out.String(), "NewCredential")
	secret, err := os.ReadFile(kept[0])
	require.NoError(t, err)
	assert.True(t, r.srv.KeyAlive(strings.TrimSpace(string(secret))))
	assert.False(t, r.srv.KeyAlive(r.key.Secret))
}

func (r *rotating) start(args ...string) (*exec.Cmd, *bytes.Buffer) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "agrenting", append([]string{"keys", "rotate", "--store", r.path, "--yes"}, args...)...)
	cmd.Env = []string{
		"AGRENTING_URL=" + r.srv.URL, "AGRENTING_API_KEY=" + r.key.Secret, "AGRENTING_AGENT_ID=" + r.agent.ID,
		"GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(r.t, cmd.Start())
	return cmd, &out
}

// An interrupted rotation gets a response without a known key.
func TestUnreadableIssueResponseSurvivesInterrupt(t *testing.T) {
	t.Parallel()

	r := &rotating{t: t, srv: agrentingtest.NewServer(agrentingtest.WithRotateKeyField("marvel")), path: filepath.Join(t.TempDir(), "keys")}
	t.Cleanup(r.srv.Close)
	r.agent = r.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	r.key = r.srv.NewKey(r.agent.ID)
	reached, release := hold(t, r.srv, "/rotate-key")
	cmd, out := r.start("--strategy", "inplace", "--show")
	<-reached
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	release()
	_ = cmd.Wait()
	t.Logf("%d:\n%s", cmd.ProcessState.ExitCode(), out)
	assert.False(t, r.srv.KeyAlive(r.key.Secret))
	assert.NotContains(t, out.String(), agrenting.APIKey(r.key.Secret).Fingerprint()+" is in use", "it is dead")
	assert.Contains(t, out.String(), "marvel", "the response is shown, since --show asks for it")
}

func TestAnInterruptedRecoveryIsARecovery(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	var second atomic.Bool // run; both have the same URL, which is in the store
	_, release := holdRequests(t, r.srv, func(req *http.Request) bool { return second.Load() && revokes(req) })
	r.srv.Fault("DELETE /api/v1/agents/{id}/credentials/{key}", agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	out, code := r.interruptedAt("never")
	require.NotZero(t, code, out)
	require.NotNil(t, r.state().Unfinished)
	r.srv.ClearFaults()
	second.Store(true)
	cmd, buf := r.start("--json")
	r.await(func(in agrenting.UnfinishedRotation) bool { return in.Holder != "" })
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	release()
	require.NoError(t, cmd.Wait(), buf.String())
	var got jsonRotation
	require.NoError(t, json.Unmarshal(buf.Bytes(), &got), buf.String())
	assert.True(t, got.Interrupted)
	assert.True(t, got.Recovered, buf.String())
}

// Another process takes over when this one has changed the key already.
func TestLostLeaseIsNotReportedAsUnchanged(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	store := r.store()
	release := r.holdRevocation()
	go func() {
		defer release()
		for t.Context().Err() == nil {
			state, err := agrenting.LoadKeyState(t.Context(), store)
			if err == nil && state.Unfinished != nil && state.Unfinished.Stage == agrenting.StageRevoke &&
				unfinish(t.Context(), store, agrenting.StageRevoke, "another", time.Minute) == nil {
				return
			}
			<-time.After(5 * time.Millisecond)
		}
	}()
	out, code := r.interruptedAt("another process is rotating the key")
	assert.Equal(t, codeInterrupted, code, out)
	assert.EqualValues(t, 2, r.state().Generation)
	assert.NotContains(t, out, "nothing was changed")
	assert.Contains(t, out, "another process has taken over the rotation")
}

// withoutStore runs keys rotate without a store, and leaves temporary folders in temp.
func (r *rotating) withoutStore(temp string, args ...string) (output string, code int) {
	r.t.Helper()
	env := []string{"AGRENTING_AGENT_ID=" + r.agent.ID, "TMPDIR=" + temp}
	return terminal(r.t, r.srv, r.key.Secret, env, "", "", append([]string{"keys", "rotate", "--yes"}, args...)...)
}

// folder makes a folder that FileStore accepts.
func folder(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "folder")
	require.NoError(t, os.Mkdir(path, 0o700))
	return path
}

// hold is holdRequests for the POST requests whose path has a suffix.
func hold(t *testing.T, srv *agrentingtest.Server, suffix string) (reached <-chan struct{}, release func()) {
	t.Helper()
	return holdRequests(t, srv, func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, suffix)
	})
}

// holdRequests lets the platform wait with requests that match: reached is closed when one
// has arrived, and release lets all of them continue.
func holdRequests(t *testing.T, srv *agrentingtest.Server, match func(*http.Request) bool) (reached <-chan struct{}, release func()) {
	t.Helper()
	arrived, free := make(chan struct{}), make(chan struct{})
	var first, end sync.Once
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if match(r) {
			first.Do(func() { close(arrived) })
			<-free
		}
		srv.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	release = func() { end.Do(func() { close(free) }) }
	t.Cleanup(release)
	srv.URL = front.URL
	return arrived, release
}

// written reads the new key, which must be the only live one.
func (r *rotating) written(path string) {
	r.t.Helper()
	secret, err := os.ReadFile(path)
	require.NoError(r.t, err)
	assert.True(r.t, r.srv.KeyAlive(strings.TrimSpace(string(secret))))
	assert.False(r.t, r.srv.KeyAlive(r.key.Secret))
	assert.Len(r.t, r.srv.LiveKeys(r.agent.ID), 1)
}

// only checks that a folder has the named files and no others.
func only(t *testing.T, folder string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	found := []string{}
	for _, e := range entries {
		found = append(found, e.Name())
	}
	assert.ElementsMatch(t, names, found)
}

func TestInterruptedStorelessRotationIsResumed(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("DELETE /api/v1/agents/{id}/credentials/{key}", agrentingtest.Status(http.StatusServiceUnavailable, "").Always())
	temp := folder(t)
	key := filepath.Join(temp, "key")
	out, code := r.interruptedAtRevoke([]string{"TMPDIR=" + temp}, "--out", key)
	assert.Equal(t, codeInterrupted, code, out)
	assert.Contains(t, out, "interrupt again to leave it to the next run)")
	assert.Contains(t, out, "run the same command again to finish the rotation")
	only(t, temp, "key.rotation")

	r.srv.ClearFaults()
	out, code = r.withoutStore(temp, "--out", key)
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, "recovered")
	r.written(key)
	only(t, temp, "key")
}

func TestLostStorelessRotationIsResumed(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.DropAfter().Always())
	temp := folder(t)
	key := filepath.Join(temp, "key")
	args := []string{"--out", key, "--strategy", "inplace"}
	out, code := r.withoutStore(temp, args...)
	assert.NotZero(t, code, out)
	assert.Contains(t, out, "run the same command again to finish the rotation: it uses the same idempotency key")
	assert.NotContains(t, out, "try again")
	assert.False(t, r.srv.KeyAlive(r.key.Secret), "the response was lost")
	only(t, temp, "key.rotation")

	out, code = r.withoutStore(temp, append(args, "--json")...)
	assert.NotZero(t, code, out)
	assert.Contains(t, out, `"outcome": "unknown"`)

	r.srv.ClearFaults()
	out, code = r.withoutStore(temp, args...)
	assert.Equal(t, codeOK, code, out)
	r.written(key)
	only(t, temp, "key")
}

// Another key is given to the command that continues the rotation of the first.
func TestStoreOfOtherRotationIsNotUsed(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.DropAfter().Always())
	temp := folder(t)
	key := filepath.Join(temp, "key")
	args := []string{"--out", key, "--strategy", "inplace"}
	out, code := r.withoutStore(temp, args...)
	assert.NotZero(t, code, out)
	r.srv.ClearFaults()

	other := newRotating(t)
	other.srv, other.agent = r.srv, r.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scout"})
	other.key = r.srv.NewKey(other.agent.ID)
	out, code = other.withoutStore(temp, args...)
	assert.Equal(t, codeUsage, code, out)
	assert.Contains(t, out, "has the unfinished rotation of a key other than "+agrenting.APIKey(other.key.Secret).Fingerprint())
	assert.True(t, r.srv.KeyAlive(other.key.Secret))

	r.path = key + ".rotation" // the way that the message names
	out, code = r.interruptedAt("never", "--out", key)
	assert.Equal(t, codeOK, code, out)
	r.written(key)
}

// The folder beside --out is not of an earlier run, and would be removed at the end.
func TestForeignRotationFolderIsNotUsed(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		fill func(t *testing.T, r *rotating, folder string)
		used bool
	}{
		"empty": {func(*testing.T, *rotating, string) {}, true},
		"temporary file": {func(t *testing.T, _ *rotating, folder string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(folder, ".agrenting-1"), nil, 0o600))
		}, true},
		"other file": {func(t *testing.T, _ *rotating, folder string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(folder, "notes"), []byte("mine"), 0o600))
		}, false},
		"store with the same key": {func(t *testing.T, r *rotating, folder string) {
			t.Helper()
			fill(t, folder, r.srv.URL, r.agent.ID, r.key)
		}, false},
		"store with another key": {func(t *testing.T, r *rotating, folder string) {
			t.Helper()
			fill(t, folder, r.srv.URL, r.agent.ID, r.srv.NewKey(r.agent.ID))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t)
			temp := folder(t)
			key := filepath.Join(temp, "key")
			store := key + ".rotation"
			require.NoError(t, os.Mkdir(store, 0o700))
			c.fill(t, r, store)
			before, err := os.ReadDir(store)
			require.NoError(t, err)
			out, code := r.withoutStore(temp, "--out", key, "--strategy", "inplace")
			if c.used {
				assert.Equal(t, codeOK, code, out)
				r.written(key)
				only(t, temp, "key")
				return
			}
			assert.Equal(t, codeUsage, code, out)
			assert.Contains(t, out, store+" is needed for the rotation, but it has files that no rotation wrote")
			assert.True(t, r.srv.KeyAlive(r.key.Secret))
			after, err := os.ReadDir(store)
			require.NoError(t, err)
			assert.Len(t, after, len(before))
		})
	}
}

// The command is killed while the platform responds.
func TestKilledStorelessRotationIsResumed(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.Delay(time.Minute))
	temp := folder(t)
	key := filepath.Join(temp, "key")
	args := []string{"--out", key, "--strategy", "inplace"}
	cmd, out := r.bare(temp, args...)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return r.srv.Count("POST /api/v1/auth/rotate-key") == 1 }, 20*time.Second, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), out.String())
	assert.DirExists(t, key+".rotation")

	text, code := r.withoutStore(temp, args...)
	assert.Equal(t, codeOK, code, text)
	assert.Contains(t, text, "an earlier run has not finished this rotation; this one continues it ("+key+".rotation)")
	r.written(key)
}

// bare prepares keys rotate without a store.
func (r *rotating) bare(temp string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "agrenting", append([]string{"keys", "rotate", "--yes"}, args...)...)
	cmd.Env = []string{
		"AGRENTING_URL=" + r.srv.URL, "AGRENTING_API_KEY=" + r.key.Secret, "AGRENTING_AGENT_ID=" + r.agent.ID,
		"TMPDIR=" + temp, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

// Other users may write in the folder of the file, so that a store there would not be safe.
func TestStorelessRotationInOpenFolderUsesTempFolder(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.DropAfter().Always())
	temp, open := folder(t), folder(t)
	require.NoError(t, os.Chmod(open, 0o775)) // #nosec G302 -- that is the case
	key := filepath.Join(open, "key")
	out, code := r.withoutStore(temp, "--out", key, "--strategy", "inplace")
	assert.NotZero(t, code, out)
	only(t, open)
	only(t, temp, filepath.Base(r.tempStore(temp)))
	assert.Contains(t, out, "run the same command again to finish the rotation")

	r.srv.ClearFaults()
	out, code = r.withoutStore(temp, "--out", key, "--strategy", "inplace")
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, "this one continues it ("+r.tempStore(temp)+")")
	r.written(key)
	only(t, temp)
}

// tempStore returns the store of a rotation without a store whose key is not written beside it.
func (r *rotating) tempStore(temp string) string {
	r.t.Helper()
	fingerprint := agrenting.APIKey(r.key.Secret).Fingerprint()
	return filepath.Join(temp, "agrenting-rotation-"+strings.ReplaceAll(fingerprint, ":", "-"))
}

// A program reads standard output, so that notes are not printed.
func TestKilledRotationOfPrintedKeyIsResumed(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/rotate-key", agrentingtest.Stall(0))
	temp := folder(t)
	args := []string{"--show", "--json", "--strategy", "inplace"}
	cmd, out := r.bare(temp, args...)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return !r.srv.KeyAlive(r.key.Secret) }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), out.String())

	// A folder beside a file is preferred, but another one has the rotation.
	key := filepath.Join(temp, "key")
	text, code := r.withoutStore(temp, "--out", key, "--strategy", "inplace")
	assert.Equal(t, codeOK, code, text)
	r.written(key)
	only(t, temp, "key")
}

// Another user has made the folder under a name that is not a secret.
func TestForeignTempFolderIsNotUsed(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	temp := folder(t)
	store := r.tempStore(temp)
	require.NoError(t, os.Mkdir(store, 0o700))
	require.NoError(t, os.Chmod(store, 0o777)) // #nosec G302 -- that is the case
	require.NoError(t, syscall.Mkfifo(filepath.Join(store, fromFile), 0o600))
	out, code := r.withoutStore(temp, "--show", "--strategy", "inplace")
	assert.NotZero(t, code, out)
	assert.Contains(t, out, "others may replace files in "+store)
	assert.Zero(t, r.srv.Count("POST *"), out)

	key := filepath.Join(folder(t), "key")
	out, code = r.withoutStore(temp, "--out", key, "--strategy", "inplace")
	assert.Equal(t, codeOK, code, out)
	r.written(key)
}

// A gateway responds, or the response is not complete. A file with it would prevent the repetition.
func TestStorelessRotationSurvivesGateways(t *testing.T) {
	t.Parallel()

	for name, fault := range map[string]agrentingtest.Fault{
		"page": agrentingtest.Page(http.StatusOK).AfterServing(), "empty": agrentingtest.Empty(http.StatusOK).AfterServing(),
		"half": agrentingtest.MalformedJSON(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRotating(t)
			r.srv.Fault("POST /api/v1/auth/rotate-key", fault.Always())
			temp := folder(t)
			key := filepath.Join(temp, "key")
			args := []string{"--out", key, "--strategy", "inplace"}
			out, code := r.withoutStore(temp, args...)
			assert.NotZero(t, code, out)
			assert.NotContains(t, out, "issued a secret")
			assert.Contains(t, out, "run the same command again to finish the rotation")
			only(t, temp, "key.rotation")

			r.srv.ClearFaults()
			out, code = r.withoutStore(temp, args...)
			assert.Equal(t, codeOK, code, out)
			r.written(key)
			only(t, temp, "key")
		})
	}
}

// The command cannot be repeated, because the file has the response.
func TestStorelessRotationKeepsUnnamedKey(t *testing.T) {
	t.Parallel()

	r := &rotating{t: t, srv: agrentingtest.NewServer(agrentingtest.WithRotateKeyField("marvel"))}
	t.Cleanup(r.srv.Close)
	r.agent = r.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	r.key = r.srv.NewKey(r.agent.ID)
	temp := folder(t)
	key := filepath.Join(temp, "key")
	out, code := r.withoutStore(temp, "--out", key, "--strategy", "inplace")
	assert.Equal(t, codeFailure, code, out)
	assert.Contains(t, out, "its response contains the secret: it is in "+key)
	assert.Contains(t, out, "save the secret from it; the platform does not show it again; then remove "+key+".rotation")
	assert.NotContains(t, out, "run the same command again")
	text, err := os.ReadFile(key)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"marvel":`)
}

func TestRefusedStorelessRotationLeavesNoFiles(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.RevokeKey(r.key.ID)
	temp := folder(t)
	out, code := r.withoutStore(temp, "--out", filepath.Join(temp, "key"))
	assert.Equal(t, codeRefused, code, out)
	assert.Contains(t, out, "put a valid one into AGRENTING_API_KEY")
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	assert.Empty(t, left, out)
}

// The platform was not asked to replace the key.
func TestPreparedStorelessRotationLeavesNoFiles(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	r.srv.Fault("POST /api/v1/auth/authenticate", agrentingtest.Page(http.StatusUnauthorized).Always())
	temp := folder(t)
	out, code := r.withoutStore(temp, "--out", filepath.Join(temp, "key"), "--strategy", "inplace")
	assert.NotZero(t, code, out)
	assert.Contains(t, out, "failed at stage prepare")
	assert.Contains(t, out, "Nothing was changed; the current key is live")
	assert.NotContains(t, out, "to finish the rotation")
	assert.True(t, r.srv.KeyAlive(r.key.Secret))
	only(t, temp)
}

// The folder of the file is removed while the platform answers, and the store with it.
func TestUnwritableKeyGoesToRescueFile(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	reached, release := hold(t, r.srv, "/rotate-key")
	temp, target := folder(t), folder(t)
	cmd, out := r.bare(temp, "--strategy", "inplace", "--out", filepath.Join(target, "key"))
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.RemoveAll(target))
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	release()
	require.Error(t, cmd.Wait())
	kept, err := filepath.Glob(filepath.Join(temp, "agrenting-rescued-*"))
	require.NoError(t, err)
	require.Len(t, kept, 1, out.String())
	assert.Contains(t, out.String(), "the new key is saved: it is in "+kept[0])
	r.written(kept[0])
}

// A folder takes the name of the file while the platform answers, so that the key cannot be
// written there; the same command writes it later.
func TestUnwritableKeyIsWrittenByRepeatedCommand(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	reached, release := hold(t, r.srv, "/rotate-key")
	temp := folder(t)
	key := filepath.Join(temp, "key")
	args := []string{"--strategy", "inplace", "--out", key}
	cmd, out := r.bare(temp, args...)
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.Mkdir(key, 0o700))
	release()
	require.Error(t, cmd.Wait())
	assert.Contains(t, out.String(), "the key was rotated, and the old one is revoked, but")
	kept, err := filepath.Glob(filepath.Join(temp, "key.rotation", "rescued-*"))
	require.NoError(t, err)
	require.Len(t, kept, 1, out.String())
	assert.Contains(t, out.String(), "the new key is in "+kept[0]+"; run the same command again to write it to "+key)
	r.written(kept[0])

	require.NoError(t, os.Remove(key))
	text, code := r.withoutStore(temp, args...)
	assert.Equal(t, codeOK, code, text)
	assert.Equal(t, 1, r.srv.Count("POST /api/v1/auth/rotate-key"), "it is not rotated again")
	r.written(key)
	assert.NoDirExists(t, key+".rotation")
}

// The terminal of a rotation is closed.
func TestHangupFinishesARotation(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	reached, release := hold(t, r.srv, "/rotate-key")
	temp := folder(t)
	key := filepath.Join(temp, "key")
	cmd, _ := r.bare(temp, "--strategy", "inplace", "--out", key)
	cmd.Stderr = nil
	notes, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	lines := bufio.NewScanner(notes)
	var text strings.Builder
	for lines.Scan() {
		text.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "interrupted; finishing the current step") {
			release()
		}
	}
	require.NoError(t, cmd.Wait(), text.String())
	assert.Contains(t, text.String(), "interrupted; finishing the current step")
	r.written(key)
	only(t, temp, "key")
}

// nohup has disabled the signal.
func TestIgnoredHangupIsIgnored(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	reached, release := hold(t, r.srv, "/rotate-key")
	key := filepath.Join(folder(t), "key")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap "" HUP; exec "$@"`, "sh",
		"agrenting", "keys", "rotate", "--yes", "--strategy", "inplace", "--out", key, "--json")
	cmd.Env = append(os.Environ(), "AGRENTING_URL="+r.srv.URL, "AGRENTING_API_KEY="+r.key.Secret, "AGRENTING_AGENT_ID="+r.agent.ID)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	release()
	require.NoError(t, cmd.Wait(), out.String())
	var got jsonRotation
	require.NoError(t, json.Unmarshal(out.Bytes(), &got), out.String())
	assert.False(t, got.Interrupted)
	r.written(key)
}
