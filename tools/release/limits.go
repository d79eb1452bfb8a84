package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// Limits of a published program. People wait for its download, and for each run.
const (
	maxSize  = 18_000_000 // bytes
	maxStart = 15 * time.Millisecond
)

// checkSize refuses a program that is too large.
func checkSize(binary string, most int64) error {
	info, err := os.Stat(binary)
	if err != nil {
		return err
	}
	if info.Size() > most {
		return fmt.Errorf("%s has %.1f MB, more than %.1f MB", binary, float64(info.Size())/1e6, float64(most)/1e6)
	}
	return nil
}

// checkStart refuses a program that takes too much user time to show its version. The least
// of several runs is what the program needs itself; the rest is the machine's.
func checkStart(ctx context.Context, binary string, most time.Duration) error {
	const runs = 10
	var least time.Duration
	for i := range runs {
		cmd := exec.CommandContext(ctx, binary, "version") // #nosec G204 -- the program that was built
		if err := cmd.Run(); err != nil {
			return err
		}
		if took := cmd.ProcessState.UserTime(); i == 0 || took < least {
			least = took
		}
	}
	if least > most {
		return fmt.Errorf("%s takes %s of user time to show its version, more than %s", binary, least, most)
	}
	return nil
}
