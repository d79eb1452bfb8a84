package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// A disk is a small separate file system. Mounting one needs root.
type disk struct {
	t    *testing.T
	path string
}

func newDisk(t *testing.T, flags uintptr) *disk {
	t.Helper()
	d := &disk{t: t, path: filepath.Join(t.TempDir(), "disk")}
	require.NoError(t, os.Mkdir(d.path, 0o700))
	err := syscall.Mount("tmpfs", d.path, "tmpfs", flags, "size=256k,mode=0700")
	if errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a file system takes root")
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Unmount(d.path, syscall.MNT_DETACH) })
	return d
}

// fill fills the disk.
func (d *disk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.path, "filler"))
	require.NoError(d.t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	require.ErrorIs(d.t, err, syscall.ENOSPC)
}

func (d *disk) file(name string) string { return filepath.Join(d.path, name) }

// A shell runs commands against a platform.
type shell struct {
	t     *testing.T
	srv   *agrentingtest.Server
	agent *agrentingtest.Agent
	key   agrentingtest.Key
	temp  string
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{t: t, srv: agrentingtest.NewServer(), temp: folder(t)}
	t.Cleanup(s.srv.Close)
	s.agent = s.srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	s.key = s.srv.NewKey(s.agent.ID)
	return s
}

func (s *shell) command(args ...string) (*exec.Cmd, *bytes.Buffer) {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), args[0], args[1:]...)
	cmd.Env = []string{
		"AGRENTING_URL=" + s.srv.URL, "AGRENTING_API_KEY=" + s.key.Secret, "AGRENTING_AGENT_ID=" + s.agent.ID,
		"TMPDIR=" + s.temp, "PATH=" + os.Getenv("PATH"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return cmd, &out
}

func (s *shell) run(args ...string) (output string, code int) {
	s.t.Helper()
	cmd, out := s.command(args...)
	err := cmd.Run()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed {
		require.NoError(s.t, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestSecretIsNotRequestedForUnwritableOutput(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		flags uintptr
		full  bool
		want  string
	}{
		"full":      {full: true, want: "no space left on device; free space on the disk"},
		"read-only": {flags: syscall.MS_RDONLY, want: "read-only file system; choose a writable folder"},
	} {
		for _, command := range [][]string{
			{"keys", "create"},
			{"keys", "rotate", "--yes"},
			{"tokens", "create", "x"},
			{"login"},
			{"agents", "register", "x", "--did", "did:web:x.example", "--capability", "x"},
			{"request", "POST", "/api/v1/auth/rotate-key"},
		} {
			t.Run(name+" "+strings.Join(command[:min(2, len(command))], " "), func(t *testing.T) {
				t.Parallel()
				s, d := newShell(t), newDisk(t, c.flags)
				if c.full {
					d.fill()
				}
				out, code := s.run(append(append([]string{"agrenting"}, command...), "--out", d.file("secret"))...)
				assert.Equal(t, codeFailure, code, out)
				assert.Contains(t, out, c.want)
				assert.Zero(t, s.srv.Count("POST *"), out)
				only(t, s.temp)
				if c.full {
					only(t, d.path, "filler")
				}
			})
		}
	}
}

func TestSecretIsNotRequestedBeyondFileLimit(t *testing.T) {
	t.Parallel()

	s := newShell(t)
	out, code := s.run("sh", "-c", `ulimit -f 0; exec "$@"`, "sh", "agrenting", "keys", "create", "--out", filepath.Join(s.temp, "secret"))
	assert.Equal(t, codeFailure, code, out)
	assert.Contains(t, out, "file too large; free space on the disk")
	assert.Zero(t, s.srv.Count("POST *"), out)
	only(t, s.temp)
}

// The disk becomes full before the platform responds.
func TestSecretHasItsRoomReserved(t *testing.T) {
	t.Parallel()

	s, d := newShell(t), newDisk(t, 0)
	reached, release := hold(t, s.srv, "")
	cmd, out := s.command("agrenting", "keys", "create", "--out", d.file("secret"))
	require.NoError(t, cmd.Start())
	<-reached
	d.fill()
	release()
	require.NoError(t, cmd.Wait(), out.String())
	secret, err := os.ReadFile(d.file("secret"))
	require.NoError(t, err)
	assert.True(t, s.srv.KeyAlive(strings.TrimSuffix(string(secret), "\n")))
	only(t, d.path, "filler", "secret")
}

// A folder takes the name of the file in the meantime.
func TestUnwritableSecretGoesToRescueFile(t *testing.T) {
	t.Parallel()

	s, target := newShell(t), folder(t)
	file := filepath.Join(target, "secret")
	reached, release := hold(t, s.srv, "")
	cmd, out := s.command("agrenting", "keys", "create", "--out", file)
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.Mkdir(file, 0o700))
	release()
	require.Error(t, cmd.Wait())
	assert.Regexp(t, `^agrenting: the key [0-9a-f-]{36} was created, but `+file+` could not be written: file exists; its secret is in `+target+
		`/\.agrenting-\d+; .*, and repeat the same command within 23 h: .*; or revoke it with agrenting keys revoke [0-9a-f-]{36} --of `+s.agent.ID+"\n$", out.String())

	require.NoError(t, os.Remove(file))
	text, code := s.run("agrenting", "keys", "create", "--out", file)
	assert.Equal(t, codeOK, code, text)
	assert.Len(t, s.srv.LiveKeys(s.agent.ID), 2, "the key in use, and one other")
	assert.NoFileExists(t, file+pendingSuffix)
}

// The folder of the file is gone, and so is what was written there.
func TestSecretWithoutFolderGoesToRescueFile(t *testing.T) {
	t.Parallel()

	s, target := newShell(t), folder(t)
	reached, release := hold(t, s.srv, "")
	cmd, out := s.command("agrenting", "keys", "create", "--out", filepath.Join(target, "secret"))
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.RemoveAll(target))
	release()
	require.Error(t, cmd.Wait())
	kept, err := filepath.Glob(filepath.Join(s.temp, "agrenting-rescued-*"))
	require.NoError(t, err)
	require.Len(t, kept, 1, out.String())
	assert.Contains(t, out.String(), "its secret is in "+kept[0])
	secret, err := os.ReadFile(kept[0])
	require.NoError(t, err)
	assert.True(t, s.srv.KeyAlive(strings.TrimSuffix(string(secret), "\n")))
}

func TestUnwritableResponseGoesToRescueFile(t *testing.T) {
	t.Parallel()

	for _, raw := range []bool{false, true} {
		s, target := newShell(t), folder(t)
		file := filepath.Join(target, "secret")
		command := []string{"agrenting", "request", "POST", "/api/v1/agents/" + s.agent.ID + "/credentials", "-f", "name=robot", "--out", file}
		if raw {
			command = append(command, "--raw")
		}
		reached, release := hold(t, s.srv, "/credentials")
		cmd, out := s.command(command...)
		require.NoError(t, cmd.Start())
		<-reached
		require.NoError(t, os.RemoveAll(target))
		release()
		require.Error(t, cmd.Wait())
		kept, err := filepath.Glob(filepath.Join(s.temp, "agrenting-rescued-*"))
		require.NoError(t, err)
		require.Len(t, kept, 1, out.String())
		assert.Regexp(t, `^agrenting: the call issued [0-9a-f-]{36}, but `+file+` could not be written: no such file or directory; its secret is in `+kept[0]+
			`; .*; or revoke it with agrenting keys revoke or agrenting tokens revoke`+"\n$", out.String())
		text, err := os.ReadFile(kept[0])
		require.NoError(t, err)
		assert.Contains(t, string(text), `"api_key":`)
	}
}

func TestUnwritableResponseIsWrittenByRepeatedRequest(t *testing.T) {
	t.Parallel()

	s, target := newShell(t), folder(t)
	file := filepath.Join(target, "secret")
	command := []string{"agrenting", "request", "POST", "/api/v1/agents/" + s.agent.ID + "/credentials", "--out", file}
	reached, release := hold(t, s.srv, "/credentials")
	cmd, out := s.command(command...)
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.Mkdir(file, 0o700))
	release()
	require.Error(t, cmd.Wait())
	assert.Contains(t, out.String(), "its secret is in "+target+"/.agrenting-")
	assert.Contains(t, out.String(), "repeat the same command within 23 h: the platform then returns the same secret; or revoke it")

	require.NoError(t, os.Remove(file))
	text, code := s.run(command...)
	assert.Equal(t, codeOK, code, text)
	assert.Len(t, s.srv.LiveKeys(s.agent.ID), 2, "the key in use, and one other")
	assert.NoFileExists(t, file+pendingSuffix)
}

// The process is killed before the platform responds.
func TestKilledRequestIsRepeated(t *testing.T) {
	t.Parallel()

	s := newShell(t)
	file := filepath.Join(s.temp, "secret")
	command := []string{"agrenting", "request", "POST", "/api/v1/agents/" + s.agent.ID + "/credentials", "--out", file}
	s.srv.Fault("POST *", agrentingtest.Stall(0))
	cmd, out := s.command(command...)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return len(s.srv.LiveKeys(s.agent.ID)) == 2 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), out.String())

	text, code := s.run(command...)
	assert.Equal(t, codeOK, code, text)
	assert.Len(t, s.srv.LiveKeys(s.agent.ID), 2, "no other key was created")
}

// The response of a call that issues nothing is larger than the disk.
func TestLargeResponseIsNotCalledSecret(t *testing.T) {
	t.Parallel()

	for _, raw := range []string{"--raw", "--quiet"} {
		s, d := newShell(t), newDisk(t, 0)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"data":"`+strings.Repeat("x", 300<<10)+`"}`)
		}))
		t.Cleanup(front.Close)
		s.srv.URL = front.URL
		out, code := s.run("agrenting", "request", "GET", "/api/v1/agents", "--out", d.file("list"), raw)
		assert.Equal(t, codeFailure, code, out)
		assert.Contains(t, out, "no space left on device; free space on the disk, or choose a folder on another disk\n")
		assert.NotContains(t, out, "secret")
		assert.NotContains(t, out, "create")
		out, _ = s.run("agrenting", "request", "GET", "/api/v1/agents", "--out", d.file("list"), raw, "--json")
		assert.Contains(t, out, `"kind": "file"`)
		only(t, d.path)
	}
}

// The new key is in use, so another one is not needed.
func TestUnwritableCopyOfStoredKey(t *testing.T) {
	t.Parallel()

	s, target := newShell(t), folder(t)
	file, store := filepath.Join(target, "secret"), filepath.Join(s.temp, "store")
	reached, release := hold(t, s.srv, "/rotate-key")
	cmd, out := s.command("agrenting", "keys", "rotate", "--yes", "--strategy", "inplace", "--store", store, "--out", file)
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.RemoveAll(target))
	release()
	require.Error(t, cmd.Wait())
	assert.Contains(t, out.String(), "agrenting: the key was rotated and is in --store "+store+", but "+file+" could not be written: no such file or directory; check the path\n")
}

// A session that could not be saved is ended.
func TestUnwritableSessionIsEnded(t *testing.T) {
	t.Parallel()

	s, target := newShell(t), folder(t)
	file := filepath.Join(target, "session")
	reached, release := hold(t, s.srv, "")
	cmd, out := s.command("agrenting", "login", "--out", file)
	require.NoError(t, cmd.Start())
	<-reached
	require.NoError(t, os.Mkdir(file, 0o700))
	release()
	require.Error(t, cmd.Wait())
	assert.Contains(t, out.String(), "could not be written: file exists; the session was ended; choose another file or folder\n")
	assert.Equal(t, 1, s.srv.Count("DELETE /api/v1/auth/logout"))
	only(t, target, "session")
}

// The store beside the file cannot take the new key; the file has room for it.
func TestRotationOnAFillingDiskKeepsTheKey(t *testing.T) {
	t.Parallel()

	s, d := newShell(t), newDisk(t, 0)
	reached, release := hold(t, s.srv, "/rotate-key")
	cmd, out := s.command("agrenting", "keys", "rotate", "--yes", "--strategy", "inplace", "--out", d.file("secret"))
	require.NoError(t, cmd.Start())
	<-reached
	d.fill()
	release()
	_ = cmd.Wait()
	secret, err := os.ReadFile(d.file("secret"))
	require.NoError(t, err, out.String())
	assert.True(t, s.srv.KeyAlive(strings.TrimSuffix(string(secret), "\n")), out.String())
	assert.False(t, s.srv.KeyAlive(s.key.Secret))
	assert.Contains(t, out.String(), "agrenting: the key was rotated, and the old one is revoked, but the temporary store could not be written: ")
	assert.Contains(t, out.String(), "no space left on device; the new key is saved: it is in "+d.file("secret")+"\n")

	require.NoError(t, os.Remove(d.file("filler")))
	text, code := s.run("agrenting", "keys", "rotate", "--yes", "--strategy", "inplace", "--out", d.file("secret"), "--force")
	assert.Equal(t, codeOK, code, text)
	again, err := os.ReadFile(d.file("secret"))
	require.NoError(t, err)
	assert.Equal(t, string(secret), string(again), "it is not rotated again")
	only(t, d.path, "secret")
}

func TestExecOnFullDiskRunsWithoutStore(t *testing.T) {
	t.Parallel()

	s, d := newShell(t), newDisk(t, 0)
	d.fill()
	out, code := s.run("agrenting", "exec", "--store", d.file("store"), "--", "sh", "-c", "echo ran")
	assert.Equal(t, codeOK, code, out)
	assert.Contains(t, out, "--store "+d.file("store")+" cannot be used, and the command runs without it: ")
	assert.Contains(t, out, "no space left on device\nran\n")
}

func TestFileErrorsAreNotNetworkErrors(t *testing.T) {
	t.Parallel()

	s, d := newShell(t), newDisk(t, syscall.MS_RDONLY)
	out, code := s.run("agrenting", "keys", "rotate", "--store", d.file("store"), "--yes")
	assert.Equal(t, codeFailure, code, out)
	assert.Contains(t, out, "read-only file system")
	assert.Contains(t, out, "; choose a writable folder\n")
	out, code = s.run("agrenting", "keys", "rotate", "--store", d.file("store"), "--yes", "--json")
	assert.Equal(t, codeFailure, code, out)
	assert.Contains(t, out, `"kind": "file"`)
}
