package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/etcdstore"
)

// An operation on the register that a store is.
type (
	linInput struct {
		save  bool
		value uint64
		prev  agrenting.Revision
	}
	linOutput struct {
		value    uint64
		rev      agrenting.Revision
		conflict bool
		hidden   bool // the conflict may be with the operation's own write
		unknown  bool
	}
	linState struct {
		value uint64
		rev   agrenting.Revision
		// open says that the revision was not seen: a save whose response was
		// lost has taken effect.
		open bool
	}
)

// model is a register with compare-and-swap by revision. A save of an unknown
// outcome may take effect at any time until the end.
var model = porcupine.NondeterministicModel{
	Init: func() []any { return []any{linState{}} },
	Step: func(s, in, out any) []any {
		st, i, o := s.(linState), in.(linInput), out.(linOutput) //nolint:forcetypeassert,errcheck // they are
		matches := st.rev == i.prev
		switch {
		case !i.save && o.unknown:
			return []any{st}
		case !i.save:
			if st.value != o.value || (!st.open && st.rev != o.rev) {
				return nil
			}
			return []any{linState{value: o.value, rev: o.rev}}
		case o.unknown && (matches || st.open):
			return []any{st, linState{value: i.value, open: true}}
		case o.unknown:
			return []any{st}
		case o.conflict && matches && !st.open && !o.hidden:
			return nil
		case o.conflict && matches && !st.open:
			return []any{linState{value: i.value, open: true}}
		case o.conflict && o.hidden && st.open && i.prev != "":
			return []any{st, linState{value: i.value, open: true}}
		case o.conflict:
			return []any{st}
		case matches || (st.open && i.prev != ""):
			return []any{linState{value: i.value, rev: o.rev}}
		default:
			return nil
		}
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%+v -> %+v", in, out)
	},
}

// history records operations of clients.
type history struct {
	mu    sync.Mutex
	began time.Time
	saved atomic.Int64 // saves that succeeded
	ops   []porcupine.Operation
}

// A busy machine gets more time, so that a history has at least minSaves.
const (
	minSaves = 21
	patience = 40 * time.Second
)

// goesOn reports whether the history needs more operations.
func (h *history) goesOn(ctx context.Context) bool {
	return ctx.Err() == nil || (h.saved.Load() < minSaves && time.Since(h.began) < patience)
}

func (h *history) now() int64 { return int64(time.Since(h.began)) }

func (h *history) add(client int, at int64, in linInput, out linOutput) {
	end := h.now()
	if out.unknown {
		end = 1 << 62 // it may take effect at any time
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: at, Output: out, Return: end})
}

// hammer has a client load and save at random until ctx ends and there are enough
// saves. certain says that responses do not get lost, so that a conflict is one.
func (h *history) hammer(ctx context.Context, client int, s agrenting.Store, next *atomic.Uint64, certain bool) {
	var rev agrenting.Revision
	for n := 0; h.goesOn(ctx); n++ {
		if rand.IntN(3) == 0 || n == 0 {
			at := h.now()
			rec, err := s.Load(context.WithoutCancel(ctx), key)
			switch {
			case err == nil:
				rev = rec.Revision
				value, _ := strconv.ParseUint(string(rec.Data), 10, 64)
				h.add(client, at, linInput{}, linOutput{value: value, rev: rev})
			case errors.Is(err, agrenting.ErrNoRecord):
				rev = ""
				h.add(client, at, linInput{}, linOutput{})
			}
		}
		value := next.Add(1)
		at := h.now()
		in := linInput{save: true, value: value, prev: rev}
		got, err := s.Save(context.WithoutCancel(ctx), key, strconv.AppendUint(nil, value, 10), rev)
		switch {
		case err == nil:
			rev = got
			h.saved.Add(1)
			h.add(client, at, in, linOutput{rev: got})
		case errors.Is(err, agrenting.ErrConflictingWrite):
			h.add(client, at, in, linOutput{conflict: true, hidden: !certain})
		default:
			h.add(client, at, in, linOutput{unknown: true})
			client += 1000 // it has not returned, so the next one is another client
		}
		<-time.After(time.Duration(rand.IntN(8)) * time.Millisecond)
	}
}

func (h *history) check(t *testing.T) {
	t.Helper()
	unknown, saves := 0, 0
	for _, op := range h.ops {
		out := op.Output.(linOutput) //nolint:forcetypeassert,errcheck // it is
		if out.unknown {
			unknown++
		}
		if op.Input.(linInput).save && out.rev != "" { //nolint:forcetypeassert,errcheck // it is
			saves++
		}
	}
	began := time.Now()
	res := porcupine.CheckOperationsTimeout(model.ToModel(), h.ops, 30*time.Second)
	t.Logf("%d operations, %d saves, %d of unknown outcome: %s in %v", len(h.ops), saves, unknown, res,
		time.Since(began).Round(time.Millisecond))
	require.Equal(t, porcupine.Ok, res)
	require.GreaterOrEqual(t, saves, minSaves)
}

func TestSavesAreLinearizable(t *testing.T) {
	t.Parallel()
	h := &history{began: time.Now()}
	var next atomic.Uint64
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 6 {
		s := shared.open(t, unique(t))
		wg.Go(func() { h.hammer(ctx, i, s, &next, true) })
	}
	wg.Wait()
	h.check(t)
}

func TestSavesAreLinearizableWhileLeadersDie(t *testing.T) {
	t.Parallel()
	c := trio(t)
	h := &history{began: time.Now()}
	var next atomic.Uint64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 4 {
		s := c.open(t, "linear", etcdstore.WithTimeout(2*time.Second))
		wg.Go(func() { h.hammer(ctx, i, s, &next, false) })
	}
	for range 3 {
		<-time.After(500 * time.Millisecond)
		dead := c.leader()
		require.NotNil(t, dead)
		dead.kill()
		require.NotNil(t, c.leader())
		<-time.After(300 * time.Millisecond)
		require.NoError(t, c.start(dead))
	}
	<-time.After(300 * time.Millisecond)
	cancel()
	wg.Wait()
	h.check(t)
}

// TestTheModelSeesMistakes makes sure that a broken history is not let through.
func TestTheModelSeesMistakes(t *testing.T) {
	t.Parallel()
	save := func(client int, at int64, prev, rev agrenting.Revision, value uint64) porcupine.Operation {
		return porcupine.Operation{
			ClientId: client, Call: at, Return: at + 1,
			Input: linInput{save: true, value: value, prev: prev}, Output: linOutput{rev: rev, conflict: rev == ""},
		}
	}
	load := func(at int64, rev agrenting.Revision, value uint64) porcupine.Operation {
		return porcupine.Operation{ClientId: 9, Call: at, Return: at + 1, Input: linInput{}, Output: linOutput{rev: rev, value: value}}
	}
	for name, bad := range map[string][]porcupine.Operation{
		"two winners":      {save(1, 0, "", "1", 1), save(2, 2, "1", "2", 2), save(3, 4, "1", "3", 3)},
		"a stale read":     {save(1, 0, "", "1", 1), save(2, 2, "1", "2", 2), load(4, "1", 1)},
		"a false conflict": {save(1, 0, "", "1", 1), save(2, 2, "1", "", 2), load(4, "1", 1), save(2, 6, "1", "3", 3)},
	} {
		require.False(t, porcupine.CheckOperations(model.ToModel(), bad), name)
	}
	require.True(t, porcupine.CheckOperations(model.ToModel(),
		[]porcupine.Operation{save(1, 0, "", "1", 1), save(2, 2, "1", "2", 2), load(4, "2", 2)}), strings.Repeat("a good one", 1))
}
