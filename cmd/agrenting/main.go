// Command agrenting is the command line of the Agrenting platform. It diagnoses
// problems with credentials, manages keys, tokens, and agents, calls any
// endpoint, and lends its credential to other programs without showing it to them.
//
//	agrenting doctor
//	agrenting request GET /api/v1/agents -f capability=writing --paginate
//	agrenting exec -- ./worker
//	agrenting proxy
//	agrenting sandbox
package main

import (
	"context"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	context.AfterFunc(ctx, stop) // a second interruption ends the process at once
	code := run(ctx, os.Args[1:], streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		lookup: os.LookupEnv, environ: os.Environ,
	})
	stop()
	os.Exit(code)
}
