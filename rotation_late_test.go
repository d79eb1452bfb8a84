package agrenting

import (
	"context"
	"iter"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
)

// A process that undoes a rotation has listed the keys already when another one,
// late, gets the key that the rotation was to make.
func TestAKeyThatComesWhileItsRotationIsUndoneIsRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		mem := MemoryStore()
		store := &interposed{Store: mem}
		c := w.client(store, RotationPolicy{Strategy: Overlap, KeyID: w.key.ID, Every: -1})
		require.NoError(t, w.call(c))
		name := ""
		var undo func()
		undo = func() {
			rec, rev, err := loadRecord(t.Context(), mem)
			require.NoError(t, err)
			if len(w.srv.LiveKeys(w.agent.ID)) < 2 {
				store.other.Store(&undo) // it comes before the save that has the key
				return
			}
			name = marker(rec.Intent)
			rec.Intent.Stage = string(StageForget)
			rev, err = saveHeld(t.Context(), mem, rec, rev, "another", 5*time.Second)
			require.NoError(t, err)
			go func() {
				advance(time.Second)
				rec.Intent = nil
				_, _ = saveRecord(context.Background(), mem, rec, rev) //nolint:usetesting // the test may have ended
			}()
		}
		store.other.Store(&undo)
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, name)
		for _, k := range w.srv.LiveKeys(w.agent.ID) {
			assert.NotEqual(t, name, k.Name)
		}
		require.NoError(t, c.Close())
	})
}

// hasty lets another process begin a rotation right before each of some saves of
// a new key.
type hasty struct {
	Store
	t *testing.T
	n atomic.Int64
}

func (s *hasty) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	e, _ := recordIn(name, data)
	rec := e.Body
	if !rec.Pending.IsZero() && s.n.Add(-1) >= 0 {
		next, rev, err := loadRecord(ctx, s.Store)
		require.NoError(s.t, err)
		next.Intent = &record.Intent{
			Key: "other", Strategy: InPlace.String(), Stage: string(StageIssue), From: next.Current.Credential.Fingerprint(),
			Generation: next.Generation + 1, Started: time.Now(),
		}
		_, err = saveHeld(ctx, s.Store, next, rev, "another", 5*time.Second)
		require.NoError(s.t, err)
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestTheOnlyLiveKeySurvivesOthersWhoWriteMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := &hasty{Store: MemoryStore(), t: t}
		c := w.client(store, RotationPolicy{Strategy: InPlace, KeyID: w.key.ID, Every: -1})
		require.NoError(t, w.call(c))
		store.n.Store(3)
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.call(c))
		for _, r := range w.srv.Requests() {
			assert.False(t, r.Method == http.MethodDelete && strings.Contains(r.Path, "/credentials/"), "%s %s", r.Method, r.Path)
		}
		advance(time.Minute) // the lease of the other process ends
		require.NoError(t, w.call(c))
		w.oneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

type panickyWatch struct{ Store }

func (panickyWatch) Watch(context.Context, string) iter.Seq2[Record, error] {
	return func(func(Record, error) bool) { panic("no channel") }
}

func TestAStoreThatPanicsWhileItIsWatchedHasFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		var said atomic.Bool
		c := w.client(panickyWatch{MemoryStore()}, RotationPolicy{Every: -1}, WithObserver(func(e Event) {
			if e.Type == EventStoreFailed && e.Err != nil && strings.Contains(e.Err.Error(), "no channel") {
				said.Store(true)
			}
		}))
		require.NoError(t, w.call(c))
		synctest.Wait()
		assert.True(t, said.Load())
		require.NoError(t, c.Close())
	})
}
