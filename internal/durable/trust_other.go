//go:build !unix

package durable

import (
	"io/fs"
	"os"
)

// hasOwners is false because files on these systems have no numeric owner.
const hasOwners = false

func ownerOf(fs.FileInfo) int { return -1 }

func isMountRoot(string, fs.FileInfo) bool { return false }

const openFlags = 0

func lockFlags() int { return os.O_CREATE | os.O_RDONLY }
