package agrenting_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/durable"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

const rotatingChildVar = "AGRENTING_TEST_ROTATING_CHILD"

// init comes before TestMain and its flags.
func init() { //nolint:gochecknoinits // a re-executed binary rotates, and tests nothing
	spec, ok := os.LookupEnv(rotatingChildVar)
	if !ok {
		return
	}
	if err := rotateAsChild(spec); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// rotatingChild is what a re-executed test binary is told.
type rotatingChild struct {
	URL, Key, Agent, Owner, File, Sealing string
	Strategy                              agrenting.Strategy
	// Fault is what happens at the step FaultAt. The child is then killed: at that
	// step, or after the rotation. Without a fault, it lives.
	Fault   stepFault
	FaultAt int
}

// stepFault is what goes wrong at a step of a rotation.
type stepFault string

const (
	faultKill      stepFault = "killed"
	faultBroken    stepFault = "cut off" // from the store and the platform, from this step on
	faultTruncated stepFault = "a truncated response"
	faultFailed    stepFault = "a response replaced by a 503"
)

// store is the file, sealed if there is a key for that.
func (s rotatingChild) store(before func(durable.Step) error) (agrenting.Store, error) {
	store, err := agrenting.FileStoreBefore(s.File, before)
	if err != nil || s.Sealing == "" {
		return store, err
	}
	key, err := agrenting.ParseSealingKey(s.Sealing)
	if err != nil {
		return nil, err
	}
	return agrenting.Sealed(store, "test", key)
}

// record is what is in the store.
func (s rotatingChild) record(ctx context.Context) (record.Key, error) {
	store, err := s.store(nil)
	if err != nil {
		return record.Key{}, err
	}
	rec, _, err := sdktest.LoadRecord(ctx, store)
	return rec, err
}

// The kinds of steps.
const (
	stepFile    = 'f'
	stepRequest = 'r'
	stepAnswer  = 'a'
)

// killer counts the steps of a rotation, and has a fault happen at one of them.
type killer struct {
	at    int
	fault stepFault
	armed atomic.Bool

	mu    sync.Mutex
	steps strings.Builder // their kinds
}

var errBroken = errors.New("cut off")

// step reports whether the fault happens at this step, and the error of one that
// fails.
func (k *killer) step(kind byte) (struck bool, err error) {
	if !k.armed.Load() {
		return false, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.steps.Len()
	k.steps.WriteByte(kind)
	switch {
	case n == k.at && k.fault == faultKill:
		killSelf()
	case n >= k.at && k.fault == faultBroken:
		return true, errBroken
	}
	return n == k.at, nil
}

// killSelf sends SIGKILL: nothing is deferred, flushed or closed.
func killSelf() {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	select {}
}

// RoundTrip has two steps: before anything is sent, and when the response is here
// and no process has seen it.
func (k *killer) RoundTrip(req *http.Request) (*http.Response, error) {
	if _, err := k.step(stepRequest); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req) //nolint:forbidigo // a separate process
	if err != nil {
		return nil, err
	}
	struck, err := k.step(stepAnswer)
	switch {
	case err != nil:
		_ = resp.Body.Close()
		return nil, err
	case struck && k.fault == faultTruncated:
		replaceBody(resp, `{"data":{"cred`)
	case struck && k.fault == faultFailed:
		resp.StatusCode = http.StatusServiceUnavailable
		replaceBody(resp, `{"error":{"code":"INTERNAL","message":"try again"}}`)
	}
	return resp, nil
}

func replaceBody(resp *http.Response, text string) {
	_ = resp.Body.Close()
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
}

// rotateAsChild is the whole of a child's life.
func rotateAsChild(text string) error {
	var spec rotatingChild
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	k := &killer{at: spec.FaultAt, fault: spec.Fault}
	store, err := spec.store(func(durable.Step) error {
		_, err := k.step(stepFile)
		return err
	})
	if err != nil {
		return err
	}
	policy := agrenting.RotationPolicy{
		Strategy: spec.Strategy, AgentID: spec.Agent, Every: -1, Grace: -1, VerifyTimeout: time.Second,
		DrainTimeout: 100 * time.Millisecond, CallTimeout: time.Second, Lease: 2 * time.Second,
	}
	if spec.Owner != "" {
		policy.Owner = agrenting.Static(agrenting.UserToken(spec.Owner))
	}
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(spec.URL), agrenting.WithTransport(k), agrenting.WithCredential(agrenting.APIKey(spec.Key)),
		agrenting.WithStore(store), agrenting.WithRotation(policy))
	if err != nil {
		return err
	}
	ctx := context.Background()
	call := func() error {
		_, err := c.Do(ctx, http.MethodGet, "/api/v1/tasks", nil, nil)
		return err
	}
	if err := call(); err != nil {
		return err
	}
	k.armed.Store(true)
	res, err := c.Rotate(ctx)
	if spec.Fault != "" {
		killSelf()
	}
	k.armed.Store(false)
	if err != nil {
		return err
	}
	if err := call(); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(os.Stdout, "%s\n%+v\n", k.steps.String(), res)
	return c.Close()
}

// run runs a child to its end, and gives what it printed.
func (s rotatingChild) run(t *testing.T) (out string, err error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^$")
	cmd.Env = append(os.Environ(), rotatingChildVar+"="+string(text))
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// TestRotationResumesAfterKillAtAnyStep has a process killed
// before each step that its rotation takes in the file and on the wire, and
// after each answer. Other processes fail at one of these steps in another way, and
// are killed when their rotation has ended. Another process then has to find the way.
func TestRotationResumesAfterKillAtAnyStep(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	t.Cleanup(srv.Close)
	hears := sdktest.NewCanary()
	sealing := agrenting.NewSealingKey().Reveal()
	hears.Hide(agrenting.APIKey(sealing))
	slots := make(chan struct{}, 16) // most of the time they wait for a lease
	var wg sync.WaitGroup
	scenarios := 0
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, tc := range []struct {
			name   string
			sealed bool
			owner  bool
			faults []stepFault
		}{
			{"", false, false, []stepFault{faultKill, faultBroken, faultTruncated, faultFailed}},
			{", sealed", true, false, []stepFault{faultKill}},
			{", owner", false, true, []stepFault{faultKill, faultBroken, faultTruncated, faultFailed}},
		} {
			spec := rotatingChild{URL: srv.URL, Strategy: s}
			name := s.String() + tc.name
			if tc.sealed {
				spec.Sealing = sealing
			}
			steps := killedAt(t, srv, hears, name, spec, tc.owner)
			require.Greater(t, len(steps), 20, "%s: every step was counted", name)
			t.Logf("%s: %d steps", name, len(steps))
			for n, kind := range steps {
				for _, fault := range tc.faults {
					if kind != stepAnswer && (fault == faultTruncated || fault == faultFailed) {
						continue
					}
					scenarios++
					if (sample.Fewer || testing.Short()) && scenarios%5 != 0 {
						continue
					}
					failing := spec
					failing.Fault, failing.FaultAt = fault, n
					slots <- struct{}{}
					wg.Go(func() {
						defer func() { <-slots }()
						killedAt(t, srv, hears, fmt.Sprintf("%s, %s at step %d", name, fault, n), failing, tc.owner)
					})
				}
			}
		}
	}
	wg.Wait()
	assert.Empty(t, hears.Leaks())
}

// killedAt runs a child that is killed because of its fault, if it has one, and then
// one without a fault. It returns the steps that the last one took.
func killedAt(t *testing.T, srv *agrentingtest.Server, hears *sdktest.Canary, name string, spec rotatingChild, owner bool) (steps string) {
	t.Helper()
	var user *agrentingtest.User
	if owner {
		user = srv.NewUser("owner")
		spec.Owner = srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret
		hears.Hide(agrenting.UserToken(spec.Owner))
	}
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "worker"})
	spec.Agent, spec.Key = agent.ID, srv.NewKey(agent.ID).Secret
	spec.File = filepath.Join(t.TempDir(), "keys", "key.json")
	hears.Hide(agrenting.APIKey(spec.Key))
	out, err := spec.run(t)
	hears.Hear(out)
	if spec.Fault != "" {
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		spec.Fault = ""
		out, err = spec.run(t)
		hears.Hear(out)
	}
	var rec record.Key
	if err == nil {
		rec, err = spec.record(t.Context())
	}
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
		return ""
	}
	hears.HideRecord(rec)
	assert.Nil(t, rec.Intent, name)
	assert.True(t, rec.Pending.IsZero(), name)
	assert.True(t, srv.KeyAlive(rec.Current.Credential.Reveal()), "%s: the store's key is alive", name)
	assert.Len(t, srv.LiveKeys(agent.ID), 1, name)
	assert.False(t, srv.KeyAlive(spec.Key), "%s: the first key is revoked", name)
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(spec.File), ".*.tmp-*")) // the pattern is good
	assert.Empty(t, left, name)
	steps, _, _ = strings.Cut(out, "\n")
	return steps
}
