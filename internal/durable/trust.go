package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// ErrUnsafe means that other users may read or replace a file or folder. The text ends
// with the command that fixes it, if there is one.
var ErrUnsafe = errors.New("unsafe file")

// maxLinks bounds the symbolic links in a path, as operating systems do.
const maxLinks = 40

// hasModes is false if the access list of a folder decides instead of its mode.
const hasModes = runtime.GOOS != "windows"

// checkFile returns an error if a file is not regular, belongs to another user, or can be
// opened by other users.
func checkFile(path string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode&fs.ModeSymlink != 0:
		return unsafe(info, "", path, "%s is a symbolic link, which may be redirected. Replace the link with the file")
	case !mode.IsRegular():
		return unsafe(info, "", path, "%s is not a regular file but "+kindOf(mode)+". Remove it")
	case !isOurs(info):
		return unsafe(info, chown(os.Geteuid()), path, "%s belongs to user %d, and this process runs as user %d",
			ownerOf(info), os.Geteuid())
	case hasModes && mode.Perm()&0o077 != 0:
		return unsafe(info, "chmod 600", path, "%s can be read or written by others (mode %#o)", mode.Perm())
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	default:
		return "something else"
	}
}

// checkFileAt is [checkFile] for a file that may not exist.
func checkFileAt(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return checkFile(path, info)
}

// CheckFolder returns [ErrUnsafe] for a folder in which other users may replace files.
// They may do so if they own the folder or a folder above it, or may write to one that is
// not sticky. Symbolic links above the folder are followed, and the folders that contain
// them and that they lead to are checked, too. The folder itself must not be a link.
//
// The root of a mount may have any mode: the user who may mount it decides who uses it.
// If other users may write to it, CheckFolder calls warn, which may be nil.
//
// The error matches [fs.ErrNotExist] if the folder does not exist and nothing above it is
// unsafe.
func CheckFolder(dir string, warn func(text string)) error {
	if !hasOwners {
		return checkKind(dir)
	}
	const root = string(filepath.Separator)
	at, names := root, append([]string{"."}, namesOf(dir)...)
	for links := 0; len(names) > 0; {
		next := filepath.Join(at, names[0]) // ".." occurs only in the targets of links
		names = names[1:]
		info, err := os.Lstat(next)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			if err := checkFolderAt(next, info, len(names) == 0, warn); err != nil {
				return err
			}
			at = next
			continue
		}
		target, err := checkLink(next, info, len(names) == 0)
		if err != nil {
			return err
		}
		links++
		if links > maxLinks {
			return &fs.PathError{Op: "open", Path: dir, Err: syscall.ELOOP}
		}
		if filepath.IsAbs(target) {
			at = root
		}
		names = append(namesOf(target), names...)
	}
	return nil
}

// namesOf splits a path. It does not resolve "..", because links must be resolved first.
func namesOf(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}

// checkLink returns the target of a symbolic link above a folder.
func checkLink(path string, info fs.FileInfo, last bool) (target string, err error) {
	if target, err = os.Readlink(path); err != nil {
		return "", err
	}
	switch {
	case last:
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		return "", unsafe(info, "", path, "%s is a symbolic link, which may be redirected. Use the folder itself, %s", quote(target))
	case !isTrusted(info):
		return "", unsafe(info, "chown -h 0", path, "%s is a symbolic link of user %d, who can redirect it", ownerOf(info))
	}
	return target, nil
}

// checkFolderAt checks one folder. last is set for the folder that contains the files.
func checkFolderAt(path string, info fs.FileInfo, last bool, warn func(string)) error {
	mode := info.Mode()
	switch {
	case !mode.IsDir():
		return &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	case !isTrusted(info) && last:
		return unsafe(info, chown(os.Geteuid()), path, "the folder %s belongs to user %d, who can replace the files in it, "+
			"and this process runs as user %d", ownerOf(info), os.Geteuid())
	case !isTrusted(info):
		return unsafe(info, chown(0), path, "the folder %s belongs to user %d, who can replace what is in it. "+
			"Use another folder, or make root its owner", ownerOf(info))
	case mode.Perm()&0o022 == 0 || mode&fs.ModeSticky != 0:
		return nil
	case isMountRoot(path, info):
		if warn != nil {
			warn(fmt.Sprintf("others may replace files in %s (mode %#o), which is accepted because it is the root of a mount. "+
				"Mount it only where the files may be read", quote(path), mode.Perm()))
		}
		return nil
	case last:
		return unsafe(info, "chmod 700", path, "others may replace files in %s (mode %#o)", mode.Perm())
	default:
		return unsafe(info, "chmod go-w", path, "others may replace what is in %s (mode %#o)", mode.Perm())
	}
}

// checkKind makes the checks that are possible on systems without file owners.
func checkKind(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
	}
	return err
}

// isOurs reports whether the effective user owns a file.
func isOurs(info fs.FileInfo) bool { return !hasOwners || ownerOf(info) == os.Geteuid() }

// isTrusted reports whether root or the effective user owns a folder.
func isTrusted(info fs.FileInfo) bool { return isOurs(info) || ownerOf(info) == 0 }

func chown(uid int) string { return fmt.Sprintf("chown %d", uid) }

// unsafe returns an [ErrUnsafe]. The first verb of the format is the path. command,
// unless it is empty, fixes the problem when the path is appended to it.
func unsafe(info fs.FileInfo, command, path, format string, args ...any) error {
	text := fmt.Sprintf(format, append([]any{quote(path)}, args...)...)
	if command == "" {
		return fmt.Errorf("%w: %s", ErrUnsafe, text)
	}
	if euid := os.Geteuid(); euid > 0 && (ownerOf(info) != euid || strings.HasPrefix(command, "chown")) {
		command = "sudo " + command
	}
	return fmt.Errorf("%w: %s. Run: %s %s", ErrUnsafe, text, command, quote(path))
}
