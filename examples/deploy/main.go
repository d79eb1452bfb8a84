// Command deploy is a service for Kubernetes: its key is a mounted secret, a probe reads
// /readyz, and it shuts down gracefully.
//
//	AGRENTING_KEY_FILE=/etc/agrenting/key deploy -listen 0.0.0.0:8080
//	go run ./examples/deploy -demo
//
// With -demo, it serves an embedded platform and simulates what happens to a pod: the
// secret is replaced as the kubelet does it, by replacing a symbolic link; the old key is
// revoked; the mounted file becomes invalid; and finally the process is asked to end
// while it serves a request.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("deploy", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("deploy", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "`address` of the service")
	show := flags.Bool("demo", false, "show what happens to a pod, with an embedded platform")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case *show:
		return demo(ctx, out)
	}
	client, err := agrenting.New(agrenting.WithLogger(slog.New(slog.NewJSONHandler(os.Stderr, nil))))
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	_, _ = fmt.Fprintf(out, "listening on http://%s\n", ln.Addr())
	return serve(ctx, client, ln)
}

const (
	// unready is how long the service still accepts requests after it was asked to end, so
	// that the load balancer can notice.
	unready = time.Second
	// drain is how long the requests in progress may take after that. Together, both are
	// less than the 30 s that Kubernetes allows by default.
	drain = 20 * time.Second
)

// serve serves until ctx ends, and then finishes the requests in progress. After them, it
// closes the client.
func serve(ctx context.Context, client *agrenting.Client, ln net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			http.Error(w, "shutting down", http.StatusServiceUnavailable)
			return
		}
		client.ReadyHandler().ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /hirings", func(w http.ResponseWriter, r *http.Request) {
		var pending []any
		if _, err := client.Do(r.Context(), http.MethodGet, "/api/v1/hirings/pending", nil, &pending); err != nil {
			http.Error(w, "the platform is not available", http.StatusBadGateway)
			return
		}
		_, _ = fmt.Fprintf(w, "%d pending hirings\n", len(pending))
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), unready+drain)
		_ = pause(grace, unready) // it continues to serve until then
		err = server.Shutdown(grace)
		cancel()
	}
	return errors.Join(err, client.Close())
}
