//go:build unix

package durable

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

const hasOwners = true

// ownerOf returns the ID of the user that a file belongs to.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// isMountRoot reports whether a folder, given by its path without links, is the root of a
// mount. Linux has a list of mounts, which includes bind mounts. On other systems, a
// mount has a different device number than the folder above it.
func isMountRoot(path string, info fs.FileInfo) bool {
	if path == "/" {
		return true
	}
	if runtime.GOOS == "linux" {
		if list, err := os.Open("/proc/self/mountinfo"); err == nil {
			defer list.Close() //nolint:errcheck // only read
			if listed, err := isMounted(list, path); err == nil {
				return listed
			}
		}
	}
	above, err := os.Lstat(filepath.Dir(path))
	if err != nil {
		return false
	}
	a, ok := info.Sys().(*syscall.Stat_t)
	b, ok2 := above.Sys().(*syscall.Stat_t)
	return ok && ok2 && a.Dev != b.Dev
}

// openFlags prevent an open from following a symbolic link and from waiting for the other
// end of a pipe.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// lockFlags returns the flags for opening a lock file. Some systems lock only files that
// are open for writing.
func lockFlags() int {
	switch runtime.GOOS {
	case "aix", "solaris", "illumos":
		return openFlags | os.O_CREATE | os.O_RDWR
	default:
		return openFlags | os.O_CREATE | os.O_RDONLY
	}
}
