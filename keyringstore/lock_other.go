//go:build !unix

package keyringstore

import (
	"io/fs"
	"os"
)

// ownerOf is the effective user's ID: there, files have no owner that a number names.
func ownerOf(fs.FileInfo) int { return os.Geteuid() }

func lockFlags() int { return os.O_CREATE | os.O_RDONLY }
