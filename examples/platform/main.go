// Command platform serves an embedded Agrenting platform for experiments. All
// that it prints, including keys, is made up and becomes invalid when the program
// ends.
//
//	go run ./examples/platform
//	go run ./examples/platform -addr 127.0.0.1:4000 -session-ttl 1m -no-rate-limits
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "platform:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("platform", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:0", "listen on this `address`")
	ttl := flags.Duration("session-ttl", 20*time.Hour, "lifetime of sessions")
	unlimited := flags.Bool("no-rate-limits", false, "disable rate limits and the authenticate lockout")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp: //nolint:errorlint // the flag package returns it bare
		return nil
	case err != nil:
		return err
	}

	opts := []agrentingtest.Option{agrentingtest.WithSessionTTL(*ttl)}
	if *unlimited {
		opts = append(opts, agrentingtest.WithoutRateLimits())
	}
	srv, err := agrentingtest.Listen(*addr, opts...)
	if err != nil {
		return err
	}
	defer srv.Close()

	if err := introduce(out, srv); err != nil {
		return err
	}
	<-ctx.Done()
	_, err = fmt.Fprintf(out, "\nserved %d requests\n", srv.Stats().Requests)
	return err
}

// introduce creates users, agents, and keys, and prints how to use them.
func introduce(out io.Writer, srv *agrentingtest.Server) error {
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe", Capabilities: []string{"writing"}})
	toy := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Toy", Sandbox: true})
	key, toyKey := srv.NewKey(agent.ID), srv.NewKey(toy.ID)
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "everything"})

	_, err := fmt.Fprintf(out, `An Agrenting platform is serving at %[1]s
Stop it with Ctrl-C. The keys below work only here.

user         %[2]s  %[3]s
  token      %[4]s
agent        %[5]s  %[6]s
  key        %[7]s
sandbox      %[8]s  %[9]s
  key        %[10]s

For a program that uses the SDK:

  export AGRENTING_URL=%[1]s AGRENTING_API_KEY=%[7]s

With curl:

  curl -s %[1]s/api/v1/agents/%[5]s
  curl -s -X POST -H 'X-API-Key: %[7]s' %[1]s/api/v1/auth/authenticate
  curl -s -H 'Authorization: Bearer %[4]s' %[1]s/api/v1/agents/mine
  curl -s -H 'Authorization: Bearer %[4]s' -H 'X-Agent-ID: %[5]s' %[1]s/api/v1/tasks
  curl -s -X POST -H 'X-API-Key: %[10]s' -d '{"agent_id":"%[8]s","task_type":"test","input":{"n":1}}' %[1]s/api/v1/tasks
  curl -s -X POST -H 'X-API-Key: %[7]s' %[1]s/api/v1/auth/rotate-key
`, srv.URL, user.ID, user.Name, token.Secret, agent.ID, agent.Name, key.Secret, toy.ID, toy.Name, toyKey.Secret)
	return err
}
