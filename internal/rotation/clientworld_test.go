package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// modelFault is what goes wrong with one operation.
type modelFault string

const (
	// The process dies before the operation, or after it took effect.
	crashBefore modelFault = "crash before"
	crashAfter  modelFault = "crash after"
	// A second process begins to rotate.
	secondJoins modelFault = "a second process joins"
	// The process is suspended for longer than its lease, and a second process
	// rotates in that time.
	overtaken modelFault = "overtaken by a second process"
	// The operation fails before or after it took effect.
	failsBefore modelFault = "fails before"
	failsAfter  modelFault = "fails after"
	// The response is a 502, the operation done or not, or a 500 that the platform
	// remembers under the idempotency key.
	gatewayBefore modelFault = "502 before"
	gatewayAfter  modelFault = "502 after"
	broken        modelFault = "500 under the idempotency key"
	// The platform does what it is asked for, and something else answers: with a 401
	// or a 403 in the platform's format, with a page, with nothing, or with a success
	// in a format that is not the platform's.
	denied      modelFault = "401 although it took effect"
	forbidden   modelFault = "403 although it took effect"
	pageAfter   modelFault = "403 page although it took effect"
	emptyAfter  modelFault = "empty 200 although it took effect"
	otherFormat modelFault = "200 of another format although it took effect"
	// From here on nothing gets through, or no response comes back, or the store
	// refuses, until that process is fixed.
	cutOff  modelFault = "cut off from here on"
	mute    modelFault = "no responses from here on"
	refuses modelFault = "the store refuses from here on"

	// The process is stopped, before the operation or after it, until a second one
	// has taken over and rotated once or twice.
	stop1     modelFault = "stopped before, while another rotates once"
	stop2     modelFault = "stopped before, while another rotates twice"
	stopLate1 modelFault = "stopped after, while another rotates once"
	stopLate2 modelFault = "stopped after, while another rotates twice"
)

var stopFaults = []modelFault{stop1, stop2, stopLate1, stopLate2}

var (
	loadFaults = []modelFault{crashBefore, overtaken, secondJoins, failsBefore}
	saveFaults = []modelFault{crashBefore, crashAfter, overtaken, secondJoins, failsBefore, failsAfter, refuses}
	callFaults = []modelFault{
		crashBefore, crashAfter, overtaken, secondJoins, failsBefore, failsAfter,
		gatewayBefore, gatewayAfter, broken, denied, forbidden, pageAfter, emptyAfter, otherFormat, cutOff, mute,
	}
)

// replacements are the responses that replace those of the platform.
var replacements = map[modelFault]func() *http.Response{
	gatewayBefore: func() *http.Response { return sdktest.Reply(http.StatusBadGateway, "bad gateway") },
	gatewayAfter:  func() *http.Response { return sdktest.Reply(http.StatusBadGateway, "bad gateway") },
	denied: func() *http.Response {
		return sdktest.Reply(http.StatusUnauthorized, `{"data":null,"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`)
	},
	forbidden: func() *http.Response {
		return sdktest.Reply(http.StatusForbidden, `{"data":null,"errors":[{"code":"FORBIDDEN","message":"no"}]}`)
	},
	pageAfter:   func() *http.Response { return sdktest.Reply(http.StatusForbidden, "<html>no</html>") },
	emptyAfter:  func() *http.Response { return sdktest.Reply(http.StatusOK, "") },
	otherFormat: func() *http.Response { return sdktest.Reply(http.StatusOK, `{"status":"ok"}`) },
}

// modelOp is one operation of the recording.
type modelOp struct{ kind, name string }

func (o modelOp) faults() []modelFault {
	switch o.kind {
	case "load":
		return loadFaults
	case "save":
		return saveFaults
	default:
		return callFaults
	}
}

// modelPlan says which faults befall which operations, counted over all
// processes from the moment when the first one begins to rotate.
type modelPlan map[int]modelFault

// modelWorld is a platform, a store, and processes that live and die.
type modelWorld struct {
	t     *testing.T
	tc    rotation.ModelCase
	srv   *agrentingtest.Server
	agent string
	owner string
	seed  string
	store agrenting.Store
	hears *sdktest.Canary

	mu        sync.Mutex
	plan      modelPlan
	armed     bool
	ops       []modelOp
	processes []*modelProcess
	seconds   sync.WaitGroup
	done      chan struct{}
	faults    []string // what was found wrong
}

// rotateElsewhere has another process rotate n times.
func (w *modelWorld) rotateElsewhere(n int) {
	p := w.start(w.seed)
	for range n {
		_ = p.rotate()
	}
}

// cleanTexts is shared by all scenarios: they print almost the same texts.
var cleanTexts sdktest.CleanTexts

func newModelWorld(t *testing.T, tc rotation.ModelCase) *modelWorld {
	t.Helper()
	opts := []agrentingtest.Option{agrentingtest.InMemory(), agrentingtest.WithoutRateLimits()}
	if !tc.Lifeline {
		opts = append(opts, agrentingtest.WithSessionsEndingWithKey())
	}
	if tc.Slow { // the key is verified four times
		opts = append(opts, agrentingtest.WithNodes(agrentingtest.Nodes{KeyLag: 170 * time.Millisecond}))
	}
	w := &modelWorld{t: t, tc: tc, srv: agrentingtest.NewServer(opts...), store: agrenting.MemoryStore(), done: make(chan struct{})}
	user := w.srv.NewUser("owner")
	w.owner = w.srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner"}).Secret
	w.agent = w.srv.NewAgent(user, agrentingtest.AgentConfig{Name: "worker"}).ID
	w.seed = w.srv.NewKey(w.agent).Secret
	w.hears = sdktest.NewCanary(w.owner, w.seed)
	w.hears.Skip(&cleanTexts)
	return w
}

func (w *modelWorld) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// end closes everything, the dead processes too.
func (w *modelWorld) end() {
	w.mu.Lock()
	w.armed = false
	all := w.processes
	close(w.done)
	w.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() { p.hears(p.client.Close()) })
	}
	wg.Wait()
	w.seconds.Wait()
	w.srv.Close()
	for _, leak := range w.hears.Leaks() {
		w.complain("%s", leak)
	}
}

// arm lets the plan begin.
func (w *modelWorld) arm(plan modelPlan) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plan, w.armed = plan, true
}

// disarm ends the plan and gives what has been recorded.
func (w *modelWorld) disarm() []modelOp {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	return w.ops
}

// count is how many operations there were so far.
func (w *modelWorld) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ops)
}

// struck is how many faults there were so far.
func (w *modelWorld) struck() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for at := range w.plan {
		if at < len(w.ops) {
			n++
		}
	}
	return n
}

// next counts an operation and says what is to go wrong with it.
func (w *modelWorld) next(op modelOp) modelFault {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.armed {
		return ""
	}
	w.ops = append(w.ops, op)
	return w.plan[len(w.ops)-1]
}

// modelProcess is one client with everything that connects it to the world.
type modelProcess struct {
	w      *modelWorld
	client *agrenting.Client
	life   context.Context // its end is the process's death
	kill   context.CancelFunc

	mu                   sync.Mutex
	cut, muted, refusing bool
	stopped              chan struct{} // nil, or closed when the process is resumed
}

// whileStopped runs f while no other operation of the process gets through.
func (p *modelProcess) whileStopped(f func()) {
	resumed := make(chan struct{})
	p.mu.Lock()
	p.stopped = resumed
	p.mu.Unlock()
	f()
	p.mu.Lock()
	p.stopped = nil
	p.mu.Unlock()
	close(resumed)
}

// awaitResumed waits while the process is stopped.
func (p *modelProcess) awaitResumed() {
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
}

// start begins a process whose environment names a key.
func (w *modelWorld) start(seed string) *modelProcess {
	p := &modelProcess{w: w}
	p.life, p.kill = context.WithCancel(context.Background())
	policy := agrenting.RotationPolicy{Strategy: agrenting.Strategy(w.tc.Strategy), AgentID: w.agent, Every: -1}
	if w.tc.Owner {
		policy.Owner = agrenting.Static(agrenting.UserToken(w.owner))
	}
	var err error
	p.client, err = agrenting.New(append([]agrenting.Option{
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.srv.URL), agrenting.WithTransport(p), agrenting.WithCredential(agrenting.APIKey(seed)),
		agrenting.WithStore(modelStore{p}), agrenting.WithRotation(policy),
	}, w.hears.Options()...)...)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes = append(w.processes, p)
	return p
}

func (p *modelProcess) hears(err error) {
	if err != nil {
		p.w.hears.Hear(err)
	}
}

func (p *modelProcess) dead() bool { return p.life.Err() != nil }

// fix removes the lasting faults.
func (p *modelProcess) fix() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.muted, p.refusing = false, false, false
}

func (p *modelProcess) lasting() (cut, muted, refusing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cut, p.muted, p.refusing
}

// call makes a request of the caller's.
func (p *modelProcess) call() error {
	_, err := p.client.Do(p.life, http.MethodGet, "/api/v1/tasks", nil, nil)
	p.awaitResumed()
	p.hears(err)
	return err
}

func (p *modelProcess) rotate() error {
	res, err := p.client.Rotate(p.life)
	p.awaitResumed() // the SDK does not wait for a store whose process is stopped
	p.hears(err)
	if err == nil && res == nil {
		p.w.complain("Rotate gave neither a rotation nor an error")
	}
	return err
}

var errModel = errors.New("model: connection lost")

// befall applies a fault to an operation. do performs it.
func (p *modelProcess) befall(ctx context.Context, op modelOp, do func(modelFault) error) error {
	if p.dead() {
		return p.nothing(ctx)
	}
	p.awaitResumed()
	if err := ctx.Err(); err != nil {
		return err
	}
	f := p.w.next(op)
	switch f {
	case crashBefore:
		p.kill()
		return p.nothing(ctx)
	case overtaken:
		p.w.second()
		p.whileStopped(func() { p.w.pause(10 * time.Minute) })
	case secondJoins:
		p.w.second()
	case stop1:
		p.whileStopped(func() { p.w.rotateElsewhere(1) })
	case stop2:
		p.whileStopped(func() { p.w.rotateElsewhere(2) })
	case failsBefore:
		return errModel
	case cutOff, mute, refuses:
		p.mu.Lock()
		p.cut, p.muted, p.refusing = p.cut || f == cutOff, p.muted || f == mute, p.refusing || f == refuses
		p.mu.Unlock()
	default:
	}
	cut, muted, refusing := p.lasting()
	if (op.kind == "call" && cut) || (op.kind == "save" && refusing) {
		return errModel
	}
	err := do(f)
	switch f { //nolint:exhaustive // the others are behind us
	case stopLate1:
		p.whileStopped(func() { p.w.rotateElsewhere(1) })
	case stopLate2:
		p.whileStopped(func() { p.w.rotateElsewhere(2) })
	}
	switch {
	case f == crashAfter:
		p.kill()
		return p.nothing(ctx)
	case f == failsAfter, op.kind == "call" && muted:
		return errModel
	case ctx.Err() != nil:
		return ctx.Err() // it stood still for longer than it wanted to wait
	}
	return err
}

// pause waits, but not beyond the end of the world.
func (w *modelWorld) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-w.done:
	}
}

// nothing is what a dead process does.
func (p *modelProcess) nothing(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// second is a process that rotates, too.
func (w *modelWorld) second() {
	p := w.start(w.seed)
	w.seconds.Go(func() {
		for range 5 {
			if err := p.rotate(); err == nil || p.dead() || errors.Is(err, agrenting.ErrClosed) {
				return
			}
			w.pause(time.Minute)
		}
	})
}

// RoundTrip implements http.RoundTripper over the platform's bare handler.
func (p *modelProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	defer func() { _ = sdktest.ReadBody(req) }()
	op := modelOp{kind: "call", name: req.Method + " " + strings.ReplaceAll(req.URL.Path, p.w.agent, "{id}")}
	var resp *http.Response
	err := p.befall(req.Context(), op, func(f modelFault) error {
		if f == broken {
			p.w.srv.Fault(req.Method+" "+req.URL.Path, agrentingtest.HandlerError(http.StatusInternalServerError, ""))
		}
		if f != gatewayBefore {
			resp = served(p.w.srv, req) //nolint:bodyclose // it has no connection
		}
		if other, ok := replacements[f]; ok {
			resp = other() //nolint:bodyclose // neither has a connection
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// served is the platform's response, without a connection. It comes whatever
// becomes of who asked.
func served(srv *agrentingtest.Server, req *http.Request) *http.Response {
	in := req.Clone(context.WithoutCancel(req.Context()))
	in.RequestURI, in.RemoteAddr, in.Host = in.URL.RequestURI(), "127.0.0.1:4000", in.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	out := httptest.NewRecorder()
	srv.Handler().ServeHTTP(out, in)
	return out.Result()
}

// modelStore is the store as one process sees it.
type modelStore struct{ p *modelProcess }

func (s modelStore) Load(ctx context.Context, name string) (rec agrenting.Record, err error) {
	err = s.p.befall(ctx, modelOp{"load", "load"}, func(modelFault) error {
		var err error
		rec, err = s.p.w.store.Load(context.WithoutCancel(ctx), name)
		return err
	})
	if err != nil {
		return agrenting.Record{}, err
	}
	return rec, nil
}

func (s modelStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (rev agrenting.Revision, err error) {
	e, _ := sdktest.RecordIn(name, data)
	s.p.w.hears.HideRecord(e.Body)
	err = s.p.befall(ctx, modelOp{"save", "save"}, func(modelFault) error {
		var err error
		rev, err = s.p.w.store.Save(context.WithoutCancel(ctx), name, data, previous)
		return err
	})
	if err != nil {
		return "", err
	}
	return rev, nil
}
