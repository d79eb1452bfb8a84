package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

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
