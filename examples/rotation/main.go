// Command rotation shows keys being rotated under load: by both strategies, with
// an answer that gets lost, and with a process that is killed in the middle.
// Sixteen workers call the platform all the while, and none of them may notice.
//
//	go run ./examples/rotation
//	go run ./examples/rotation -duration 1m
//
// The platform is an embedded one, so nothing is needed and nothing is touched
// but a temporary folder. The exit code is 1 if any call has failed, or if more
// or less than one key is live at the end, and 130 after an interrupt.
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

// crashCommand makes this program the process that is going to be killed.
const crashCommand = "rotate-and-be-killed"

const routeRotate = "POST /api/v1/auth/rotate-key"

func main() {
	ignorePipe()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, leave := context.WithCancel(ctx)
	context.AfterFunc(ctx, stop) // who interrupts twice does not want to wait
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
	duration := flags.Duration("duration", 12*time.Second, "how long to go on, as a `time` such as 1m")
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

// policy is for keys that are rotated on demand, by processes that crash: the
// lease is how long other processes wait for a rotation whose process writes
// nothing.
func policy(strategy agrenting.Strategy, agentID string) agrenting.RotationPolicy {
	return agrenting.RotationPolicy{
		Strategy: strategy, Every: -1, AgentID: agentID,
		Grace: 100 * time.Millisecond, CallTimeout: 500 * time.Millisecond, Lease: time.Second,
	}
}

// rotateOnce is the other process. It has the store, and needs no key of its own.
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

// show is a platform, a key in a folder, and two clients of it, each as it would
// be in a process of its own.
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
	// The initial key, which the environment would name. It fills the store and
	// is ignored once it was rotated away.
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

// scene is one thing that happens to the key.
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
		{"overlap: a second key, and the first one is revoked", s.byOverlap},
		{"in place: the old key dies with the call", s.rotateInPlace},
		{"in place, and the answer with the new key gets lost", s.loseTheAnswer},
		{"in place, by a process that is killed in the middle", s.crash},
	}
	// A call is replayed with the successor of its key: let that live a little.
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
	_ = pause(ctx, gap) // let the workers use the last key

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

// closeGrace is how long an interrupted program lets a rotation finish.
const closeGrace = time.Second

// close ends the clients, which finish a rotation that they have begun. After an
// interrupt nobody waits long for that: platform and key die with the program.
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

// work calls the platform until it may rest, and finishes what it has begun. An
// interrupt ends its call too, which has neither succeeded nor failed then: in
// the middle of a crash it would wait for a key until the lease runs out.
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

// loseTheAnswer has the platform rotate the key and hang up. The SDK asks again
// by the same idempotency key, under a session that it took before.
func (s *show) loseTheAnswer(ctx context.Context) error {
	s.srv.Fault(routeRotate, agrentingtest.DropAfter())
	return s.rotateInPlace(ctx)
}

// crash kills another process when the platform has rotated the key and that
// process has not heard of it. Nobody knows the new key then, and the old one is
// dead: the workers wait until one of the clients has taken the work over.
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
	// The child's second attempt, and whatever else it may try, is held up.
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

// await looks until done says so.
func (s *show) await(ctx context.Context, done func() bool) error {
	for end := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(end) {
			return errors.New("it has not happened within 30 s")
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// verdict sums up, and is an error if anybody noticed.
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
		return fmt.Errorf("found %s, and there should be one, the store's", counted(len(live), "live key"))
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
