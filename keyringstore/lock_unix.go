//go:build unix

package keyringstore

import (
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// ownerOf returns the ID of the user that a file belongs to.
func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// lockFlags open a lock file without following a link or waiting for the other end of a
// pipe. Some systems lock only what is open for writing.
func lockFlags() int {
	const flags = os.O_CREATE | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	switch runtime.GOOS {
	case "aix", "solaris", "illumos":
		return flags | os.O_RDWR
	default:
		return flags | os.O_RDONLY
	}
}
