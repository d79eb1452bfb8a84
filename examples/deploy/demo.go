package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// demo shows the life of a pod.
func demo(ctx context.Context, out io.Writer) error {
	folder, err := os.MkdirTemp("", "agrenting-deploy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // it is temporary anyway
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	defer srv.Close()
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scribe"})
	first := srv.NewKey(agent.ID)
	mount := &mount{folder: folder}
	if err := mount.publish(first.Secret); err != nil {
		return err
	}

	client, err := agrenting.New(
		agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport()),
		agrenting.WithLookupEnv(func(name string) (string, bool) {
			return mount.path(), name == "AGRENTING_KEY_FILE" // the options that the pod's specification sets
		}))
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	terminated, terminate := context.WithCancel(ctx)
	defer terminate()
	served := make(chan error, 1)
	go func() { served <- serve(terminated, client, ln) }()
	p := &pod{url: "http://" + ln.Addr().String(), client: &http.Client{Transport: agrenting.NewBaseTransport()}, out: out}

	err = p.live(ctx, srv, agent.ID, first.ID, mount, terminate)
	terminate()
	if serr := <-served; err == nil {
		err = serr
	}
	if err == nil {
		_, err = fmt.Fprintln(out, "the service has ended; each request got a response")
	}
	return err
}

// pod is the service as seen from outside.
type pod struct {
	url    string
	client *http.Client
	out    io.Writer
}

// live does to the pod what can happen to a pod.
func (p *pod) live(ctx context.Context, srv *agrentingtest.Server, agentID, firstID string, m *mount, terminate func()) error {
	if err := p.expect(ctx, "a mounted key", http.StatusOK, http.StatusOK); err != nil {
		return err
	}
	second := srv.NewKey(agentID)
	if err := m.publish(second.Secret); err != nil {
		return err
	}
	srv.RevokeKey(firstID)
	if err := p.expect(ctx, "the secret is replaced, and the old key revoked", http.StatusOK, http.StatusOK); err != nil {
		return err
	}
	srv.RevokeKey(second.ID) // the operator does not replace the secret
	if err := p.expect(ctx, "the key is revoked, and the secret is not replaced", http.StatusBadGateway, http.StatusServiceUnavailable); err != nil {
		return err
	}
	if err := m.publish(srv.NewKey(agentID).Secret); err != nil {
		return err
	}
	if err := p.expect(ctx, "the secret is replaced", http.StatusOK, http.StatusOK); err != nil {
		return err
	}
	srv.Fault("GET /api/v1/hirings/pending", agrentingtest.Delay(2*unready))
	slow := make(chan error, 1)
	go func() { slow <- p.get(ctx, "/hirings", http.StatusOK) }()
	for srv.Stats().Faults == 0 { // the request is in progress
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	terminate()
	if err := p.expect(ctx, "asked to end, with a request in progress", http.StatusOK, http.StatusServiceUnavailable); err != nil {
		return err
	}
	return <-slow
}

// expect waits until the probe returns its status, and checks the status of the
// service.
func (p *pod) expect(ctx context.Context, when string, service, probe int) error {
	var err error
	for range 1000 {
		if err = p.get(ctx, "/hirings", service); err == nil {
			err = p.get(ctx, "/readyz", probe)
		}
		if err == nil {
			_, err = fmt.Fprintf(p.out, "%-50s /hirings %d, /readyz %d\n", when, service, probe)
			return err
		}
		if perr := pause(ctx, 10*time.Millisecond); perr != nil {
			return perr
		}
	}
	return fmt.Errorf("%s: %w", when, err)
}

func (p *pod) get(ctx context.Context, path string, want int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode != want {
		err = fmt.Errorf("%s returned %d (%s), want %d", path, resp.StatusCode, strings.TrimSpace(string(body)), want)
	}
	return err
}

// mount is a mounted secret. As on Kubernetes, the file is a link through ..data to a
// folder, and replacing that link replaces the secret.
type mount struct {
	folder  string
	version int
}

func (m *mount) path() string { return filepath.Join(m.folder, "key") }

func (m *mount) publish(secret string) error {
	m.version++
	version := fmt.Sprintf("..version_%d", m.version)
	if err := os.Mkdir(filepath.Join(m.folder, version), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(m.folder, version, "key"), []byte(secret), 0o600); err != nil {
		return err
	}
	next, data := filepath.Join(m.folder, "..data_tmp"), filepath.Join(m.folder, "..data")
	if err := os.Symlink(version, next); err != nil {
		return err
	}
	if err := os.Rename(next, data); err != nil { // replaces the link
		return err
	}
	if m.version > 1 {
		return os.RemoveAll(filepath.Join(m.folder, fmt.Sprintf("..version_%d", m.version-1)))
	}
	return os.Symlink(filepath.Join("..data", "key"), m.path())
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
