// Command worker is an agent that works on its hirings: it lists those that are pending,
// does the work, and submits a result or reports a failure.
//
//	go run ./examples/worker
//
// Without a credential in the environment, the worker serves an embedded platform, hires
// itself five times, and ends when all hirings have ended. During that time, the platform
// fails, ends the worker's session, and loses a response. No hiring is lost or done
// twice. With a credential, the worker works on the hirings of that agent until it is
// interrupted. Then it finishes its current hiring.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	err := run(ctx, os.Stdout, os.LookupEnv)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, lookupEnv func(string) (string, bool)) error {
	client, err := agrenting.New(agrenting.WithLookupEnv(lookupEnv), agrenting.WithSession())
	if errors.Is(err, agrenting.ErrNoCredential) {
		_, _ = fmt.Fprintln(out, "there is no credential, so the platform is an embedded one")
		return embedded(ctx, out)
	}
	if err != nil {
		return err
	}
	defer client.Close()
	w := &worker{client: client, out: out, every: 15 * time.Second} // four requests in a minute, of 100 that are allowed
	return w.run(ctx)
}

// hiring has the fields of a hiring that the worker reads.
type hiring struct {
	ID         string `json:"id"`
	Capability string `json:"capability_requested"`
	Task       string `json:"task_description"`
	// DispatchID and Attempt change when a failed hiring is retried.
	DispatchID string `json:"dispatch_id"`
	Attempt    int    `json:"trace_attempt"`
}

// worker does the work of one agent.
type worker struct {
	client *agrenting.Client
	out    io.Writer
	every  time.Duration // pause between two lists
}

// run works until ctx ends, and finishes the current hiring.
func (w *worker) run(ctx context.Context) error {
	for {
		var pending []hiring
		_, err := w.client.Do(ctx, http.MethodGet, "/api/v1/hirings/pending", nil, &pending)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was asked to end
		case errors.Is(err, agrenting.ErrUnauthorized), errors.Is(err, agrenting.ErrForbidden):
			return err // waiting does not help
		case err != nil:
			w.printf("cannot list hirings, will try again: %v", err)
		}
		for _, h := range pending {
			if ctx.Err() != nil {
				break
			}
			// Work that has begun is finished, within a minute.
			atWork, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			w.handle(atWork, h)
			cancel()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.every):
		}
	}
}

// handle does one hiring. If the report fails, the hiring is still pending and is done
// again.
func (w *worker) handle(ctx context.Context, h hiring) {
	action, body := "result", map[string]any{"dispatch_id": h.DispatchID, "trace_attempt": h.Attempt}
	output, err := work(h)
	if err != nil {
		action = "failure"
		body["reason"], body["error"] = "capability_mismatch", err.Error()
	} else {
		body["output"] = map[string]any{"summary": output}
	}
	// The idempotency key names the attempt, so the same report is accepted only once, even
	// from another process.
	resp, err := w.client.Do(ctx, http.MethodPost, "/api/v1/hirings/"+url.PathEscape(h.ID)+"/"+action, body, nil,
		agrenting.CallIdempotencyKey(h.DispatchID+"-"+action))
	switch {
	case errors.Is(err, agrenting.ErrValidation):
		w.printf("hiring %q: the platform no longer takes a %s", h.Task, action) // canceled, or retried since
	case err != nil:
		w.printf("hiring %q: cannot report: %v", h.Task, err)
	default:
		w.printf("hiring %q: %s after %d %s", h.Task, action, resp.Attempts, plural("attempt", resp.Attempts))
	}
}

// work does the actual work of the agent.
func work(h hiring) (string, error) {
	switch h.Capability {
	case "uppercase":
		return strings.ToUpper(h.Task), nil
	case "reverse":
		letters := []rune(h.Task)
		for i, j := 0, len(letters)-1; i < j; i, j = i+1, j-1 {
			letters[i], letters[j] = letters[j], letters[i]
		}
		return string(letters), nil
	default:
		return "", fmt.Errorf("cannot do %q", h.Capability)
	}
}

func (w *worker) printf(format string, args ...any) { _, _ = fmt.Fprintf(w.out, format+"\n", args...) }

func plural(noun string, n int) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
