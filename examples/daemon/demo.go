package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// shown are the metrics in the output of the demo, which do not depend on
// timing.
var shown = regexp.MustCompile(`^agrenting_(credential_state\{state="(ready|rejected)"\}|key_overdue|rejections_total|rotations_total.*) `)

// demo runs the daemon for a short time.
func demo(ctx context.Context, out io.Writer) error {
	folder, err := os.MkdirTemp("", "agrenting-daemon-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // it is temporary anyway
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	defer srv.Close()
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	d, err := newDaemon(filepath.Join(folder, "keys"), agrenting.RotationPolicy{Grace: -1}, on(srv, srv.NewKey(agent.ID).Secret)...)
	if err != nil {
		return err
	}
	d.every = 20 * time.Millisecond
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return errors.Join(err, d.client.Close())
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.run(working, ln) }()
	err = d.demonstrate(ctx, srv, "http://"+ln.Addr().String(), out)
	stop()
	return errors.Join(err, <-ended)
}

// on returns the options for a client of the embedded platform.
func on(srv *agrentingtest.Server, key string) []agrenting.Option {
	return []agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport()),
		agrenting.WithCredential(agrenting.APIKey(key)),
	}
}

func (d *daemon) demonstrate(ctx context.Context, srv *agrentingtest.Server, url string, out io.Writer) error {
	if _, err := d.client.Credential(ctx); err != nil {
		return err
	}
	rotation, err := d.client.Rotate(ctx)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "the key was rotated to generation %d, %s\n", rotation.Generation, rotation.Strategy)
	srv.RevokeSessions()
	if _, err := d.client.Do(ctx, http.MethodGet, "/api/v1/hirings/pending", nil, nil); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "the session was ended and replaced, and no request failed")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if shown.MatchString(lines.Text()) {
			_, _ = fmt.Fprintln(out, lines.Text())
		}
	}
	return lines.Err()
}
