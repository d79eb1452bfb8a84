package rotation_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
)

// wallClock is by how much the wall clock of a machine is ahead of that of the tests.
type wallClock struct{ ahead atomic.Int64 }

// skewedStore is a store as a process with another wall clock sees it: the dates that
// it writes are ahead, and so is the date that it compares the dates of records with.
type skewedStore struct {
	agrenting.Store
	clock *wallClock
	onOp  func(ctx context.Context) error
}

var dateInRecord = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[^"]+"`)

// shifted returns a record with its dates moved.
func shifted(data []byte, by time.Duration) []byte {
	return dateInRecord.ReplaceAllFunc(data, func(text []byte) []byte {
		at, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(text))
		if err != nil {
			return text
		}
		return []byte(at.Add(by).Format(`"` + time.RFC3339Nano + `"`))
	})
}

func (s *skewedStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	if err := s.onOp(ctx); err != nil {
		return agrenting.Record{}, err
	}
	rec, err := s.Store.Load(ctx, name)
	rec.Data = shifted(rec.Data, -time.Duration(s.clock.ahead.Load()))
	return rec, err
}

func (s *skewedStore) Save(ctx context.Context, name string, data []byte, previous agrenting.Revision) (agrenting.Revision, error) {
	if err := s.onOp(ctx); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, shifted(data, time.Duration(s.clock.ahead.Load())), previous)
}

// clockJump is by how much the wall clock of one machine or of two is set.
type clockJump struct {
	name string
	by   time.Duration
	both bool // the clients are on one machine
}

// TestWallClockJumpsAtAnyOperation sets the wall clock at an operation on the store of a
// rotation by one of two clients. The call of the rotation has no response at first, or
// the client dies.
func TestWallClockJumpsAtAnyOperation(t *testing.T) {
	t.Parallel()
	for _, s := range bothStrategies {
		for i, jump := range []clockJump{
			{"a day forward", 24 * time.Hour, true},
			{"a day back", -24 * time.Hour, true},
			{"a day forward on one machine", 24 * time.Hour, false},
			{"a day back on one machine", -24 * time.Hour, false},
		} {
			for j, trouble := range []string{"", "response lost", "no response", "client dies"} {
				t.Run(fmt.Sprintf("%v, %s, %s", s, jump.name, trouble), func(t *testing.T) {
					t.Parallel()
					var last int
					synctest.Test(t, func(t *testing.T) { last = rotateWhileClockJumps(t, s, jump, "", -1) })
					require.GreaterOrEqual(t, last, 5, "a load and four saves")
					first, step := 0, 1
					if sample.Fewer { // other operations in each case
						first, step = (4*i+j)%min(9, last), 9
					}
					for at := first; at < last; at += step {
						synctest.Test(t, func(t *testing.T) { rotateWhileClockJumps(t, s, jump, trouble, at) })
						if t.Failed() {
							t.Fatalf("with a jump at %d of %d", at, last)
						}
					}
				})
			}
		}
	}
}

// mortal is what a client needs to reach others. When it dies, nothing gets through.
type mortal struct {
	base http.RoundTripper
	dead chan struct{}
	die  func()
}

func newMortal(base http.RoundTripper) *mortal {
	m := &mortal{base: base, dead: make(chan struct{})}
	m.die = sync.OnceFunc(func() { close(m.dead) })
	return m
}

// live waits for the end of ctx if the client is dead.
func (m *mortal) live(ctx context.Context) error {
	select {
	case <-m.dead:
		<-ctx.Done()
		return ctx.Err()
	default:
		return nil
	}
}

func (m *mortal) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := m.live(req.Context()); err != nil {
		sdktest.ReadBody(req)
		return nil, err
	}
	return m.base.RoundTrip(req)
}

// rotateWhileClockJumps rotates under load, has the wall clock jump at an operation, and
// returns how many operations there were.
func rotateWhileClockJumps(t *testing.T, s agrenting.Strategy, jump clockJump, trouble string, at int) int {
	t.Helper()
	w := sdktest.NewRotationWorld(t)
	shared := agrenting.MemoryStore()
	first := new(wallClock)
	second := first
	if !jump.both {
		second = new(wallClock)
	}
	life := newMortal(w.Server.Transport())
	dies := trouble == "client dies"
	var ops atomic.Int64
	var armed atomic.Bool
	onOp := func(ctx context.Context) error {
		if armed.Load() && ops.Add(1) == int64(at+1) {
			first.ahead.Store(int64(jump.by))
			if dies {
				life.die()
			}
		}
		return life.live(ctx)
	}
	policy := agrenting.RotationPolicy{Strategy: s, Every: -1, RetryEvery: 5 * time.Second}
	a := w.Client(&skewedStore{shared, first, onOp}, policy, agrenting.WithTransport(life))
	b := w.Client(&skewedStore{shared, second, func(context.Context) error { return nil }}, policy)
	require.NoError(t, w.Call(a))
	require.NoError(t, w.Call(b))
	users := []*agrenting.Client{b, a}
	if dies {
		users = users[:1]
	}
	stop := steadyLoad(t, w, 300*time.Millisecond, users...)
	armed.Store(true)
	responses := map[string]int{"response lost": 1, "no response": sdktest.AskAttempts}[trouble]
	if responses > 0 {
		w.Server.Fault(sdktest.RouteCreateKey, agrentingtest.DropAfter().Times(responses))
		w.Server.Fault(sdktest.RouteRotate, agrentingtest.DropAfter().Times(responses))
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := a.Rotate(ctx)
	if !dies && responses < sdktest.AskAttempts {
		require.NoError(t, err)
	}
	assert.True(t, dies || time.Since(began) < time.Minute)
	armed.Store(false)
	sdktest.Advance(time.Minute) // an attempt that failed continues, perhaps elsewhere
	again, cancelAgain := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancelAgain()
	for _, c := range users {
		_, err = c.Rotate(again)
		require.NoError(t, err)
	}
	stop()
	w.OneLiveKey(shared)
	for _, c := range users {
		require.NoError(t, c.Close())
	}
	if dies {
		_ = a.Close()
	}
	return int(ops.Load())
}
