// Command fleet shows eight workers that share one API key and its sessions
// through etcd. The key is rotated, sessions end, and a member of etcd is
// killed, while the workers continue to call the platform. The platform and
// three members of etcd run inside the program. It needs no setup, leaves
// nothing behind, and ends by itself. The exit code is 1 if a request has
// failed, and 130 after an interrupt.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/etcdstore"
)

const (
	workers = 8
	// step is the pause between two events.
	step = 1300 * time.Millisecond
	// closeGrace is how long an interrupted program waits for its cleanup.
	closeGrace = time.Second
)

func main() {
	signal.Ignore(syscall.SIGPIPE) // sockets break here all the time; the type reader detects that the reader has left
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, leave := context.WithCancel(ctx)
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	failed, err := run(ctx, reader{os.Stdout, leave}, step)
	stop()
	switch {
	case failed > 0:
		os.Exit(1)
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "fleet: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// reader writes to the reader of the output. If the reader has left, it acts as
// an interrupt.
type reader struct {
	io.Writer
	gone func()
}

func (r reader) Write(p []byte) (int, error) {
	n, err := r.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		r.gone()
	}
	return n, err
}

// show is the fleet and its results.
type show struct {
	srv     *agrentingtest.Server
	etcd    *members
	clients []*agrenting.Client
	stores  []*etcdstore.Store
	calls   atomic.Int64
	failed  atomic.Int64

	mu      sync.Mutex
	out     io.Writer
	began   time.Time
	mark    time.Time             // when the latest event began
	adopted map[int]time.Duration // by worker, since mark
}

func (s *show) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%5.1fs  %s\n", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, out io.Writer, step time.Duration) (failed int64, err error) {
	folder, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return 0, err
	}
	defer func() {
		if gone := os.RemoveAll(folder); ctx.Err() == nil { // otherwise, a member may still write to it
			err = errors.Join(err, gone)
		}
	}()
	s := &show{out: out, began: time.Now()}
	s.srv = agrentingtest.NewServer(agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1_000_000}))
	defer s.srv.Close()
	if s.etcd, err = startMembers(ctx, folder, 3); err != nil {
		return 0, fmt.Errorf("etcd: %w", err)
	}
	s.say("three members of etcd and the platform are up")
	defer within(ctx, s.close)
	if err := s.hire(); err != nil {
		return 0, err
	}
	working, rest := context.WithCancel(ctx)
	defer rest()
	var wg sync.WaitGroup
	for _, c := range s.clients {
		wg.Go(func() { s.work(working, c) })
	}
	s.play(ctx, step)
	rest()
	wg.Wait()
	s.sum()
	return s.failed.Load(), ctx.Err()
}

// within calls end and waits for it. After an interrupt, it does not wait for
// long: work that still waits for a lease or for a member of etcd ends with the
// program.
func within(ctx context.Context, end func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		end()
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	t := time.NewTimer(closeGrace)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// hire creates the workers. Each has its own connection to etcd, like a worker
// on another host.
func (s *show) hire() error {
	agent := s.srv.NewAgent(s.srv.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe"})
	key := s.srv.NewKey(agent.ID)
	sealing := agrenting.NewSealingKey() // all hosts of a real fleet read the same key, with ParseSealingKey
	for i := range workers {
		store, err := etcdstore.Open(etcdstore.Config{Endpoints: s.etcd.endpoints, Name: "scribes"},
			etcdstore.WithSealingKey(sealing))
		if err != nil {
			return err
		}
		s.stores = append(s.stores, store)
		c, err := agrenting.New(
			agrenting.WithoutEnvironment(), agrenting.WithBaseURL(s.srv.URL), agrenting.WithInsecureHTTP(),
			agrenting.WithCredential(agrenting.APIKey(key.Secret)), // fills the store while it is empty
			agrenting.WithStore(store),
			agrenting.WithSession(), // shared through the store
			agrenting.WithRotation(agrenting.RotationPolicy{AgentID: agent.ID, KeyID: key.ID, Grace: 300 * time.Millisecond}),
			agrenting.WithObserver(func(e agrenting.Event) { s.observe(i, e) }),
		)
		if err != nil {
			return err
		}
		s.clients = append(s.clients, c)
	}
	return nil
}

func (s *show) observe(worker int, e agrenting.Event) {
	if e.Type != agrenting.EventRenewed || e.Reason == "first" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.adopted[worker]; !known && !s.mark.IsZero() {
		s.adopted[worker] = e.Time.Sub(s.mark)
	}
}

// work calls the platform almost without a pause.
func (s *show) work(ctx context.Context, c *agrenting.Client) {
	for ctx.Err() == nil {
		_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
		if ctx.Err() != nil {
			return
		}
		s.calls.Add(1)
		if err != nil {
			s.failed.Add(1)
			s.say("a request failed: %v", err)
		}
		pause(ctx, 10*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// play runs the events one after the other.
func (s *show) play(ctx context.Context, step time.Duration) {
	pause(ctx, step)
	if ctx.Err() != nil {
		return
	}
	s.say("%d workers share one session: %s", workers, counted(s.srv.Stats().Authenticates, "exchange"))
	for n, act := range []func(context.Context) (newSession bool){
		s.rotate, s.endSessions, s.rotate, s.killLeader, s.rotate, s.endSessions, s.rotate, s.rotate,
	} {
		s.mu.Lock()
		s.mark, s.adopted = time.Now(), map[int]time.Duration{}
		s.mu.Unlock()
		exchanges, calls := s.srv.Stats().Authenticates, s.calls.Load()
		newSession := act(ctx)
		pause(ctx, step)
		if newSession {
			s.awaitAll(ctx)
		}
		if ctx.Err() != nil {
			s.say("  %d. interrupted", n+1)
			return
		}
		s.tell(n+1, s.srv.Stats().Authenticates-exchanges, s.calls.Load()-calls)
	}
}

// patience is how long a busy machine may take in addition to the pause.
const patience = 15 * time.Second

// awaitAll waits until every worker has the new session.
func (s *show) awaitAll(ctx context.Context) {
	have := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.adopted)
	}
	for end := time.Now().Add(patience); have() < workers && time.Now().Before(end) && ctx.Err() == nil; {
		pause(ctx, 10*time.Millisecond)
	}
}

// tell prints which workers have noticed the event.
func (s *show) tell(n int, exchanges, calls int64) {
	s.mu.Lock()
	took := slices.Sorted(maps.Values(s.adopted))
	s.mu.Unlock()
	if len(took) == 0 {
		s.say("  %d. %d of %d workers have kept their session: %s, %s in the meantime", n, workers, workers,
			counted(exchanges, "exchange"), counted(calls, "request"))
		return
	}
	s.say("  %d. %d of %d workers have the new session, half of them after %v: %s", n, len(took), workers,
		took[len(took)/2].Round(time.Millisecond), counted(exchanges, "exchange"))
}

// counted formats a number of things.
func counted(n int64, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func (s *show) rotate(ctx context.Context) (newSession bool) {
	i := int(s.calls.Load()) % workers
	for ctx.Err() == nil {
		switch rot, err := s.clients[i].Rotate(ctx); {
		case ctx.Err() != nil:
			return false
		case err != nil:
			s.say("worker %d could not rotate, will retry: %v", i, err)
			pause(ctx, 300*time.Millisecond)
		case rot != nil:
			s.say("worker %d has rotated the key (%s): %s is dead, %s is live, in %v", i, rot.Strategy, rot.From, rot.To,
				rot.Took.Round(time.Millisecond))
			return true
		}
	}
	return false
}

func (s *show) endSessions(context.Context) (newSession bool) {
	s.srv.RevokeSessions()
	s.say("the platform has ended all sessions")
	return true
}

func (s *show) killLeader(context.Context) (newSession bool) {
	s.say("%s, the leader of etcd, was killed; two are left", s.etcd.killLeader())
	return false
}

func (s *show) sum() {
	st := s.srv.Stats()
	s.say("%s by %d workers, %s, %s; %d failed", counted(s.calls.Load(), "request"), workers,
		counted(st.KeysCreated, "rotation"), counted(st.Authenticates, "exchange"), s.failed.Load())
}

// close closes the workers first, so that they release their leases.
func (s *show) close() {
	var wg sync.WaitGroup
	for _, c := range s.clients {
		wg.Go(func() { _ = c.Close() })
	}
	wg.Wait()
	for _, store := range s.stores {
		_ = store.Close()
	}
	s.etcd.close()
}
