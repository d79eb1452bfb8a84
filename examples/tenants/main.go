// Command tenants shows a service that acts for many agents. Each agent has its own key
// and its own client, and all clients share one base transport. The program creates the
// clients, sends requests as all agents, closes one client, and prints the cost of a
// client.
//
//	go run ./examples/tenants
//	go run ./examples/tenants -tenants 5000
//
// The platform is an embedded one. See docs/tenants.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "tenants: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "tenants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tenants", flag.ContinueOnError)
	count := flags.Int("tenants", 500, "`number` of agents")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case *count < 2:
		return errors.New("-tenants must be at least 2")
	}
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(1))
	defer srv.Close()
	keys := make([]string, *count)
	owner := srv.NewUser("Ada")
	for i := range keys {
		agent := srv.NewAgent(owner, agrentingtest.AgentConfig{Name: fmt.Sprintf("Agent %d", i)})
		keys[i] = srv.NewKey(agent.ID).Secret
	}

	before, goroutines := heap(), runtime.NumGoroutine()
	pool, err := newPool(srv.URL, keys)
	if err != nil {
		return err
	}
	defer pool.close()
	each := (heap() - before) / int64(*count)
	_, _ = fmt.Fprintf(out, "%d clients, about %d bytes each, %d goroutines more\n", *count, each, runtime.NumGoroutine()-goroutines)

	began := time.Now()
	if err := pool.callAll(ctx); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%d requests over the shared connections, in %v\n", *count, time.Since(began).Round(time.Millisecond))

	if err := pool.clients[0].Close(); err != nil { // a tenant has left
		return err
	}
	if err := pool.call(ctx, 0); !errors.Is(err, agrenting.ErrClosed) {
		return fmt.Errorf("a closed client returned: %w", err)
	}
	if err := pool.call(ctx, 1); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "one client is closed, and the others keep the connections")
	return err
}

// pool has the clients of all tenants.
type pool struct {
	base    *http.Transport
	clients []*agrenting.Client
}

func newPool(url string, keys []string) (*pool, error) {
	p := &pool{base: agrenting.NewBaseTransport()}
	p.base.MaxIdleConnsPerHost = inParallel // about the number of concurrent requests
	for _, key := range keys {
		c, err := agrenting.New(
			agrenting.WithoutEnvironment(), // the environment has only one key
			agrenting.WithBaseURL(url),
			agrenting.WithTransport(p.base),
			agrenting.WithCredential(agrenting.APIKey(key)),
		)
		if err != nil {
			p.close()
			return nil, err
		}
		p.clients = append(p.clients, c)
	}
	return p, nil
}

// close closes the clients, and then their shared connections.
func (p *pool) close() {
	for _, c := range p.clients {
		_ = c.Close() // a fixed key has no state to save
	}
	p.base.CloseIdleConnections()
}

// inParallel is the number of requests that are sent at the same time.
const inParallel = 8

// callAll sends one request as each tenant.
func (p *pool) callAll(ctx context.Context) error {
	next, failures := make(chan int), make(chan error, inParallel)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	for range inParallel {
		workers.Go(func() {
			for i := range next {
				if err := p.call(ctx, i); err != nil {
					failures <- fmt.Errorf("tenant %d: %w", i, err)
					cancel()
					return
				}
			}
		})
	}
feed:
	for i := range p.clients {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	workers.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return ctx.Err()
	}
}

func (p *pool) call(ctx context.Context, tenant int) error {
	_, err := p.clients[tenant].Do(ctx, http.MethodGet, "/api/v1/hirings/pending", nil, nil)
	return err
}

// heap returns the number of bytes in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) // #nosec G115 -- a heap is smaller
}
