package durable

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mount mounts something at a folder, or skips the test if that is not permitted.
func mount(t *testing.T, source, folder, kind string, flags uintptr, data string) {
	t.Helper()
	if err := syscall.Mount(source, folder, kind, flags, data); err != nil {
		t.Skip("cannot mount: ", err)
	}
	t.Cleanup(func() { assert.NoError(t, syscall.Unmount(folder, syscall.MNT_DETACH)) })
}

func TestMountRootMayBeOpenToOthers(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(t *testing.T, folder string){
		"tmpfs": func(t *testing.T, folder string) { t.Helper(); mount(t, "tmpfs", folder, "tmpfs", 0, "mode=0777") },
		"bind": func(t *testing.T, folder string) {
			t.Helper()
			from := t.TempDir()
			require.NoError(t, os.Chmod(from, 0o777))
			mount(t, from, folder, "", syscall.MS_BIND, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir() + "/an empty\tdir\\"
			require.NoError(t, os.Mkdir(folder, 0o700))
			do(t, folder)
			for _, path := range []string{filepath.Join(folder, "key"), filepath.Join(folder, "keys", "key")} {
				var warnings []string
				f := New(path, 1<<10, nil).Warning(func(text string) { warnings = append(warnings, text) })
				require.NoError(t, f.Write([]byte("x")))
				_, err := f.Read()
				require.NoError(t, err)
				unlock, err := f.Lock(t.Context())
				require.NoError(t, err)
				unlock()
				require.NotEmpty(t, warnings)
				assert.Contains(t, warnings[0], quote(folder)+" (mode 0777)")
			}
			open := filepath.Join(folder, "open")
			require.NoError(t, os.Mkdir(open, 0o700))
			require.NoError(t, os.Chmod(open, 0o777))
			require.ErrorIs(t, New(filepath.Join(open, "key"), 1<<10, nil).Write(nil), ErrUnsafe, "below the mount")
			require.NoError(t, os.Chown(folder, otherUser, otherUser))
			require.ErrorIs(t, New(filepath.Join(folder, "key"), 1<<10, nil).Write(nil), ErrUnsafe, "of another user")
		})
	}
}

func TestListOfMountsIsRead(t *testing.T) {
	t.Parallel()
	const list = `22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 98:0 /mnt1 /mnt/a\040b\134 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
short
`
	for path, want := range map[string]bool{"/": true, `/mnt/a b\`: true, "/mnt1": false, "/mnt": false} {
		got, err := isMounted(strings.NewReader(list), path)
		require.NoError(t, err)
		assert.Equal(t, want, got, path)
	}
}

// asUser runs do on a thread of another effective user.
func asUser(t *testing.T, uid int, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user")
	}
	done := make(chan syscall.Errno)
	go func() {
		runtime.LockOSThread() // and never unlocked, so the thread ends with the goroutine
		keep := ^uintptr(0)
		_, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, keep, uintptr(uid), keep)
		if errno == 0 {
			do()
		}
		done <- errno
	}()
	require.Zero(t, <-done)
}

func TestOtherUsersMayUseFoldersOfRoot(t *testing.T) {
	t.Parallel()
	top, err := os.MkdirTemp("/tmp", "durable") //nolint:usetesting // other users cannot enter that of a test
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(top)) })
	require.NoError(t, os.Chmod(top, 0o755))
	asUser(t, otherUser, func() {
		assert.Equal(t, otherUser, os.Geteuid())
		_, err := New(filepath.Join(top, "key"), 1<<10, nil).Read()
		assert.ErrorIs(t, err, os.ErrNotExist)
	})
	keys := filepath.Join(top, "keys")
	require.NoError(t, os.Mkdir(keys, 0o700))
	require.NoError(t, os.Chown(keys, otherUser, otherUser))
	f := New(filepath.Join(keys, "key"), 1<<10, nil)
	asUser(t, otherUser, func() { assert.NoError(t, f.Write([]byte("x"))) })
	_, err = f.Read()
	require.ErrorIs(t, err, ErrUnsafe, "root refuses it")
	require.ErrorContains(t, err, ". Run: chown 0 "+keys)
	asUser(t, otherUser+1, func() {
		_, err := f.Read()
		assert.ErrorIs(t, err, ErrUnsafe) //nolint:testifylint // not the goroutine of the test
		assert.ErrorContains(t, err, ". Run: sudo chown 12346 "+keys)
	})
}

func TestDeviceInPlaceOfALockIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.remove(p.lock)
	const null = 1<<8 | 3
	if err := syscall.Mknod(p.lock, syscall.S_IFCHR|0o600, null); err != nil {
		t.Skip("cannot make a device: ", err)
	}
	_, err := p.File().Lock(t.Context())
	require.ErrorIs(t, err, ErrUnsafe)
	require.ErrorContains(t, err, "a device")
}
