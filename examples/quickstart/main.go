// Command quickstart shows what the SDK does, step by step, and checks it.
//
//	go run ./examples/quickstart
//
// It runs against a platform of its own inside the process, unless the
// environment names a real one: with AGRENTING_URL or a credential variable set
// it uses that, and only reads.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, os.LookupEnv)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "quickstart: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// naming are the variables that tell which platform, and as whom.
var naming = []string{
	"AGRENTING_URL", "AGRENTING_KEY_FILE", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_API_KEY", "AGRENTING_SESSION_TOKEN",
}

type lookupFunc = func(string) (string, bool)

func run(ctx context.Context, out io.Writer, lookupEnv lookupFunc) error {
	p := newPrinter(out, lookupEnv)
	for _, name := range naming {
		if value, found := lookupEnv(name); found && value != "" {
			return realPlatform(ctx, p, lookupEnv, name)
		}
	}
	return embedded(ctx, p)
}
