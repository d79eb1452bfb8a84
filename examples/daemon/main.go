// Command daemon is a long-lived agent with all features that keep its credential valid:
// its key is in a store and is rotated, requests use sessions, and Prometheus reads its
// metrics.
//
//	AGRENTING_API_KEY=… daemon -keys /var/lib/my-agent/keys -listen 127.0.0.1:9464
//	go run ./examples/daemon -demo
//
// The variable is needed only while the store is empty. GET /metrics, /readyz, and
// /status report the state; promagrenting/alerts.yml has alert rules for the metrics.
// With -demo, the daemon serves an embedded platform, rotates the key, ends the session,
// shows some metrics, and ends.
package main

import (
	"context"
	"encoding/json"
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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/promagrenting"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "daemon: interrupted")
		os.Exit(130)
	case err != nil:
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("daemon", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("daemon", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:9464", "`address` for probes and metrics")
	keys := flags.String("keys", "", "`folder` that keeps the key and its sessions")
	show := flags.Bool("demo", false, "run a demo with an embedded platform")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case *show:
		return demo(ctx, out)
	case *keys == "":
		return errors.New("-keys is required: a folder that only this user can write to")
	}
	d, err := newDaemon(*keys, agrenting.RotationPolicy{}, agrenting.WithLogger(slog.New(slog.NewJSONHandler(os.Stderr, nil))))
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return errors.Join(err, d.client.Close())
	}
	_, _ = fmt.Fprintf(out, "metrics at http://%s/metrics\n", ln.Addr())
	return d.run(ctx, ln)
}

// daemon is the agent with its probes and metrics.
type daemon struct {
	client *agrenting.Client
	mux    *http.ServeMux
	every  time.Duration // pause between two calls of the platform
}

// newDaemon creates the daemon without sending a request. The key is in a folder and is
// rotated according to the policy.
func newDaemon(keys string, policy agrenting.RotationPolicy, opts ...agrenting.Option) (*daemon, error) {
	store, err := agrenting.FileStore(keys)
	if err != nil {
		return nil, err
	}
	metrics := promagrenting.New()
	client, err := agrenting.New(append(opts,
		metrics.Option(),
		agrenting.WithStore(store),
		agrenting.WithRotation(policy),
		agrenting.WithSession(),
	)...)
	if err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(metrics); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	d := &daemon{client: client, mux: http.NewServeMux(), every: 15 * time.Second}
	d.mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	d.mux.Handle("GET /readyz", client.ReadyHandler())
	d.mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(client.Status()) // the reader has left
	})
	return d, nil
}

// run works until ctx ends, and then closes the client. It finishes a rotation that is in
// progress.
func (d *daemon) run(ctx context.Context, ln net.Listener) error {
	server := &http.Server{Handler: d.mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(ln) }()
	err := d.work(ctx, failed)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(grace), d.client.Close())
}

// work is the work of the agent.
func (d *daemon) work(ctx context.Context, failed <-chan error) error {
	for {
		// Errors are in the metrics and in the log, and the call is repeated later.
		_, _ = d.client.Do(ctx, http.MethodGet, "/api/v1/hirings/pending", nil, nil)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-time.After(d.every):
		}
	}
}
