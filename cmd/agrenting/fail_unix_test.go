//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go"
)

func TestOnlyErrorsOfTheNetworkAreCalledSo(t *testing.T) {
	t.Parallel()

	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	path := func(err error) error { return fmt.Errorf("store: %w", &fs.PathError{Op: "open", Path: "x", Err: err}) }
	for name, c := range map[string]struct {
		err  error
		code int
		kind string
		hint string
	}{
		"refused":     {dial(syscall.ECONNREFUSED), codeNetwork, "network", "no server listens there"},
		"proxy":       {&net.OpError{Op: "proxyconnect", Net: "tcp", Err: dial(syscall.ECONNREFUSED)}, codeNetwork, "network", "the proxy cannot be reached"},
		"unreachable": {dial(syscall.EHOSTUNREACH), codeNetwork, "network", ""},
		"socket":      {&net.OpError{Op: "dial", Net: "unix", Err: path(syscall.EACCES)}, codeNetwork, "network", ""},
		"reset":       {fmt.Errorf("read: %w", syscall.ECONNRESET), codeNetwork, "network", ""},
		"name":        {&net.DNSError{IsNotFound: true}, codeNetwork, "network", "does not resolve"},
		"timeout":     {context.DeadlineExceeded, codeNetwork, "network", ""},
		"cut off":     {io.ErrUnexpectedEOF, codeNetwork, "network", ""},
		"full":        {path(syscall.ENOSPC), codeFailure, "file", "free space on the disk"},
		"quota":       {path(syscall.EDQUOT), codeFailure, "file", "free space on the disk"},
		"read-only":   {path(syscall.EROFS), codeFailure, "file", "choose a writable folder"},
		"unreadable":  {path(syscall.EACCES), codeFailure, "file", "run the command as the owner of the file"},
		"link":        {&os.LinkError{Op: "rename", Old: "a", New: "b", Err: syscall.EXDEV}, codeFailure, "file", ""},
		"truncated":   {path(io.ErrUnexpectedEOF), codeFailure, "file", ""},
		"store":       {fmt.Errorf("%w: no", agrenting.ErrReadOnlyStore), codeFailure, "file", ""},
		"number":      {fmt.Errorf("lock: %w", syscall.ENOLCK), codeFailure, "failure", ""},
		"other":       {errors.New("x"), codeFailure, "failure", ""},
	} {
		e := (&app{ctx: t.Context()}).classify(c.err)
		assert.Equal(t, c.code, e.code, name)
		assert.Equal(t, c.kind, e.kind, name)
		assert.Contains(t, e.hint, c.hint, name)
	}
}
