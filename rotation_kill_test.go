package agrenting_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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
	URL, Key, Agent, File, Sealing string
	Strategy                       agrenting.Strategy
	// KillAt is the step before which the child kills itself; beyond the last
	// one, it lives.
	KillAt int
}

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

// killer counts the steps of a rotation, and kills its process at one of them.
type killer struct {
	at    int64
	armed atomic.Bool
	steps atomic.Int64
}

func (k *killer) step() {
	if k.armed.Load() && k.steps.Add(1)-1 == k.at {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill() // SIGKILL: nothing is deferred, flushed or closed
		}
		fmt.Fprintln(os.Stderr, "not killed:", err)
		select {}
	}
}

// RoundTrip has two steps: before anything is sent, and when the answer is here
// and nobody has seen it.
func (k *killer) RoundTrip(req *http.Request) (*http.Response, error) {
	k.step()
	resp, err := http.DefaultTransport.RoundTrip(req) //nolint:forbidigo // a process of its own
	k.step()
	return resp, err
}

// rotateAsChild is the whole of a child's life.
func rotateAsChild(text string) error {
	var spec rotatingChild
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	k := &killer{at: int64(spec.KillAt)}
	store, err := spec.store(func(durable.Step) error {
		k.step()
		return nil
	})
	if err != nil {
		return err
	}
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(spec.URL), agrenting.WithTransport(k), agrenting.WithCredential(agrenting.APIKey(spec.Key)),
		agrenting.WithStore(store), agrenting.WithRotation(agrenting.RotationPolicy{
			Strategy: spec.Strategy, AgentID: spec.Agent, Every: -1, Grace: -1,
			DrainTimeout: 100 * time.Millisecond, CallTimeout: time.Second, Lease: 2 * time.Second,
		}))
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
	k.armed.Store(false)
	if err != nil {
		return err
	}
	if err := call(); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(os.Stdout, "%d\n%+v\n", k.steps.Load(), res)
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

// TestARotationKilledAtAnyStepIsFinishedByTheNextStart has a process killed
// before each step that its rotation takes in the file and on the wire, and
// after each answer. Another process then has to find the way.
func TestARotationKilledAtAnyStepIsFinishedByTheNextStart(t *testing.T) {
	t.Parallel()
	srv := agrentingtest.NewServer(agrentingtest.WithoutRateLimits())
	t.Cleanup(srv.Close)
	hears := sdktest.NewCanary()
	sealing := agrenting.NewSealingKey().Reveal()
	hears.Hide(agrenting.APIKey(sealing))
	slots := make(chan struct{}, 16) // most of the time they wait for a lease
	var wg sync.WaitGroup
	for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, sealed := range []bool{false, true} {
			spec := rotatingChild{URL: srv.URL, Strategy: s}
			name := s.String()
			if sealed {
				spec.Sealing = sealing
				name += ", sealed"
			}
			steps := killedAt(t, srv, hears, name, spec, 1<<30)
			require.Greater(t, steps, 20, "%s: every step was counted", name)
			t.Logf("%s: %d steps", name, steps)
			for n := range steps {
				slots <- struct{}{}
				wg.Go(func() {
					defer func() { <-slots }()
					killedAt(t, srv, hears, fmt.Sprintf("%s, killed at step %d", name, n), spec, n)
				})
			}
		}
	}
	wg.Wait()
	assert.Empty(t, hears.Leaks())
}

// killedAt runs a child that is killed at a step, and then one that is not. It
// gives the steps that the last one took.
func killedAt(t *testing.T, srv *agrentingtest.Server, hears *sdktest.Canary, name string, spec rotatingChild, at int) int {
	t.Helper()
	agent := srv.NewAgent(nil, agrentingtest.AgentConfig{Name: "worker"})
	spec.Agent, spec.Key = agent.ID, srv.NewKey(agent.ID).Secret
	spec.File = filepath.Join(t.TempDir(), "keys", "key.json")
	hears.Hide(agrenting.APIKey(spec.Key))
	spec.KillAt = at
	out, err := spec.run(t)
	hears.Hear(out)
	if at < 1<<20 {
		if err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		spec.KillAt = 1 << 30
		out, err = spec.run(t)
		hears.Hear(out)
	}
	var rec record.Key
	if err == nil {
		rec, err = spec.record(t.Context())
	}
	if err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
		return 0
	}
	hears.HideRecord(rec)
	assert.Nil(t, rec.Intent, name)
	assert.True(t, rec.Pending.IsZero(), name)
	assert.True(t, srv.KeyAlive(rec.Current.Credential.Reveal()), "%s: the store's key is alive", name)
	assert.Len(t, srv.LiveKeys(agent.ID), 1, name)
	assert.False(t, srv.KeyAlive(spec.Key), "%s: the first key is revoked", name)
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(spec.File), ".*.tmp-*")) // the pattern is good
	assert.Empty(t, left, name)
	first, _, _ := strings.Cut(out, "\n")
	steps, _ := strconv.Atoi(first)
	return steps
}
