// Command rotation shows how keys are rotated under load: with both strategies,
// with a lost response, and with a process that is killed during a rotation. At
// the same time, sixteen workers call the platform, and none of their calls may
// fail.
//
//	go run ./examples/rotation
//	go run ./examples/rotation -duration 1m
//
// The platform is an embedded one, so the program needs no setup, and it uses
// only a temporary folder. The exit code is 1 if any call has failed, or if the
// number of live keys at the end is not 1. It is 130 after an interrupt.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// crashCommand makes this program the process that is killed.
const crashCommand = "rotate-and-be-killed"

const routeRotate = "POST /api/v1/auth/rotate-key"

func main() {
	ignorePipe()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, leave := context.WithCancel(ctx)
	context.AfterFunc(ctx, stop) // a second interrupt ends the program at once
	err := run(ctx, os.Args[1:], reader{os.Stdout, leave})
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "rotation: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "rotation:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 && args[0] == crashCommand {
		return rotateOnce(ctx, args[1:])
	}
	flags := flag.NewFlagSet("rotation", flag.ContinueOnError)
	duration := flags.Duration("duration", 12*time.Second, "how long to continue, as a `time` such as 1m")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	folder, err := os.MkdirTemp("", "agrenting-rotation-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // it is temporary anyway
	s, err := newShow(filepath.Join(folder, "keys"), out)
	if err != nil {
		return err
	}
	defer s.srv.Close()
	return s.run(ctx, *duration)
}

// policy is the policy for keys that are rotated on demand and by processes that
// may crash. The lease is how long other processes wait for a rotation after its
// process has stopped writing.
func policy(strategy agrenting.Strategy, agentID string) agrenting.RotationPolicy {
	return agrenting.RotationPolicy{
		Strategy: strategy, Every: -1, AgentID: agentID,
		Grace: 100 * time.Millisecond, CallTimeout: 500 * time.Millisecond, Lease: time.Second,
	}
}

// rotateOnce is the other process. It uses the store, so it does not need a
// separate key.
func rotateOnce(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New(crashCommand + " takes a URL, a folder and the ID of an agent")
	}
	url, folder, agentID := args[0], args[1], args[2]
	store, err := agrenting.FileStore(folder)
	if err != nil {
		return err
	}
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(url),
		agrenting.WithStore(store), agrenting.WithRotation(policy(agrenting.InPlace, agentID)))
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Rotate(ctx)
	return err
}

// show is a platform, a key in a folder, and two clients. Each client behaves as
// if it were in a separate process.
type show struct {
	srv     *agrentingtest.Server
	agent   *agrentingtest.Agent
	store   agrenting.Store
	folder  string
	overlap *agrenting.Client
	inPlace *agrenting.Client
	screen  *screen
}

func newShow(folder string, out io.Writer) (*show, error) {
	store, err := agrenting.FileStore(folder)
	if err != nil {
		return nil, err
	}
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits(), agrentingtest.WithLogLimit(100))
	agent := srv.NewAgent(srv.NewUser("Ada"), agrentingtest.AgentConfig{Name: "Scribe"})
	s := &show{srv: srv, agent: agent, store: store, folder: folder, screen: newScreen(out)}
	// The initial key, which the environment would have. It fills the empty store,
	// and is ignored after it was rotated.
	initial := agrenting.APIKey(srv.NewKey(agent.ID).Secret)
	if s.overlap, err = s.client(agrenting.Overlap, initial); err == nil {
		s.inPlace, err = s.client(agrenting.InPlace, initial)
	}
	if err != nil {
		srv.Close()
		return nil, err
	}
	return s, nil
}

func (s *show) client(strategy agrenting.Strategy, initial agrenting.Credential) (*agrenting.Client, error) {
	return agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(s.srv.URL),
		agrenting.WithCredential(initial), agrenting.WithStore(s.store),
		agrenting.WithRotation(policy(strategy, s.agent.ID)), agrenting.WithObserver(s.screen.observe))
}

// scene is one rotation.
type scene struct {
	title string
	play  func(context.Context) error
}

func (s *show) run(ctx context.Context, duration time.Duration) error {
	var resting atomic.Bool
	var workers sync.WaitGroup
	for i := range 16 {
		c := s.overlap
		if i%2 == 0 {
			c = s.inPlace
		}
		workers.Go(func() { s.work(ctx, c, &resting) })
	}
	drawing := s.screen.start()

	scenes := []scene{
		{"overlap: create a second key, then revoke the first", s.byOverlap},
		{"in place: the call revokes the old key", s.rotateInPlace},
		{"in place: the response with the new key gets lost", s.loseTheAnswer},
		{"in place: the process is killed during the rotation", s.crash},
	}
	// A call is resent with the successor of its key, so keep that key valid for
	// some time.
	gap := max(duration/16, 200*time.Millisecond)
	var failure error
	end := time.Now().Add(duration)
	for i := 0; failure == nil && ctx.Err() == nil && (i < len(scenes) || time.Now().Before(end)); i++ {
		sc := scenes[i%len(scenes)]
		if pause(ctx, gap) != nil {
			break
		}
		began := time.Now()
		s.screen.setScene(sc.title)
		how := ""
		switch err := sc.play(ctx); {
		case err == nil:
		case ctx.Err() != nil:
			how = ", interrupted"
		default:
			how, failure = ", failed", fmt.Errorf("%s: %w", sc.title, err)
		}
		s.screen.line("%-55s %5d ms%s", sc.title, time.Since(began).Milliseconds(), how)
		s.screen.setScene("")
	}
	_ = pause(ctx, gap) // lets the workers use the last key

	resting.Store(true)
	workers.Wait()
	failure = errors.Join(failure, s.close(ctx))
	drawing()
	failure = errors.Join(failure, s.verdict(ctx))
	if failure != nil {
		return failure
	}
	return ctx.Err()
}

// closeGrace is how long an interrupted program waits for a rotation to finish.
const closeGrace = time.Second

// close closes the clients, which finish a rotation that they have begun. After an
// interrupt, it does not wait long for that, because platform and key end with the
// program.
func (s *show) close(ctx context.Context) error {
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(s.overlap.Close(), s.inPlace.Close()) }()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(closeGrace)
	defer t.Stop()
	select {
	case err := <-closed:
		return err
	case <-t.C:
		return nil
	}
}

// work calls the platform until it may rest, and finishes its last call. An
// interrupt also cancels a call, which then has neither succeeded nor failed.
// During a crash, the call would otherwise wait for a key until the lease ends.
func (s *show) work(ctx context.Context, c *agrenting.Client, resting *atomic.Bool) {
	for n := 0; ctx.Err() == nil && !resting.Load(); n++ {
		method, in := http.MethodGet, any(nil)
		if n%8 == 0 {
			method, in = http.MethodPost, map[string]string{"agent_id": s.agent.ID, "task_type": "test"}
		}
		_, err := c.Do(ctx, method, "/api/v1/tasks?limit=1", in, nil)
		if err != nil && ctx.Err() != nil {
			return
		}
		s.screen.called(err)
		_ = pause(ctx, 4*time.Millisecond)
	}
}

func (s *show) byOverlap(ctx context.Context) error {
	_, err := s.overlap.Rotate(ctx)
	return err
}

func (s *show) rotateInPlace(ctx context.Context) error {
	_, err := s.inPlace.Rotate(ctx)
	return err
}

// loseTheAnswer makes the platform rotate the key and close the connection. The
// SDK repeats the request with the same idempotency key and a session that it
// obtained before.
func (s *show) loseTheAnswer(ctx context.Context) error {
	s.srv.Fault(routeRotate, agrentingtest.DropAfter())
	return s.rotateInPlace(ctx)
}

// crash kills another process after the platform has rotated the key and before
// that process gets the response. The new key is then unknown and the old one is
// dead. The workers wait until one of the clients has taken over the rotation.
func (s *show) crash(ctx context.Context) error {
	before, err := agrenting.LoadKeyState(ctx, s.store)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	rotations := s.srv.Stats().Rotations
	s.srv.Fault(routeRotate, agrentingtest.DropAfter())
	// Later requests of the child are delayed.
	s.srv.Fault(routeRotate, agrentingtest.Delay(time.Minute))
	//nolint:gosec // it is this very program
	child := exec.CommandContext(ctx, program, crashCommand, s.srv.URL, s.folder, s.agent.ID)
	if err := child.Start(); err != nil {
		return err
	}
	rotated := s.await(ctx, func() bool { return s.srv.Stats().Rotations > rotations })
	_ = child.Process.Kill()
	_ = child.Wait() // "signal: killed"
	s.srv.ClearFaults()
	if rotated != nil {
		return rotated
	}
	return s.await(ctx, func() bool {
		key, err := agrenting.LoadKeyState(ctx, s.store)
		return err == nil && key.Unfinished == nil && key.Generation > before.Generation
	})
}

// await polls until done returns true.
func (s *show) await(ctx context.Context, done func() bool) error {
	for end := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(end) {
			return errors.New("the expected change has not happened within 30 s")
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// verdict prints a summary. It returns an error if a call has failed or if the
// live keys are wrong.
func (s *show) verdict(ctx context.Context) error {
	live := s.srv.LiveKeys(s.agent.ID)
	stats := s.srv.Stats()
	s.screen.summary(len(live), stats.KeysRevoked)
	if n := s.screen.failed(); n > 0 {
		return errors.New(counted(n, "call") + " failed")
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // interrupted, perhaps in the middle of a crash
	}
	key, err := agrenting.LoadKeyState(ctx, s.store)
	if err != nil {
		return err
	}
	if len(live) != 1 || !s.srv.KeyAlive(key.Credential.Reveal()) {
		return fmt.Errorf("found %s; want one live key, the one in the store", counted(len(live), "live key"))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
