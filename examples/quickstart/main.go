// Command quickstart shows step by step what the SDK does, and checks each
// step.
//
//	go run ./examples/quickstart
//
// It uses an embedded platform inside the process. If AGRENTING_URL or a
// credential variable is set, it uses that platform instead, and only reads.
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

// naming are the variables that select the platform and the credential.
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
