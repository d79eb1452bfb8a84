package rotation_test

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

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// A process that undoes a rotation has listed the keys already when another one,
// late, gets the key that the rotation was to make.
func TestKeyIssuedDuringUndoIsRevoked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		mem := agrenting.MemoryStore()
		store := &sdktest.Interposed{Store: mem}
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.Overlap, KeyID: w.Key.ID, Every: -1})
		require.NoError(t, w.Call(c))
		name := ""
		var undo func()
		undo = func() {
			rec, rev, err := sdktest.LoadRecord(t.Context(), mem)
			require.NoError(t, err)
			if len(w.Server.LiveKeys(w.Agent.ID)) < 2 {
				store.Other.Store(&undo) // it comes before the save that has the key
				return
			}
			name = sdktest.Marker(rec.Intent)
			rec.Intent.Stage = string(agrenting.StageForget)
			rev, err = sdktest.SaveHeld(t.Context(), mem, rec, rev, "another", 5*time.Second)
			require.NoError(t, err)
			go func() {
				sdktest.Advance(time.Second)
				rec.Intent = nil
				_, _ = sdktest.SaveRecord(context.Background(), mem, rec, rev) //nolint:usetesting // the test may have ended
			}()
		}
		store.Other.Store(&undo)
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NotEmpty(t, name)
		for _, k := range w.Server.LiveKeys(w.Agent.ID) {
			assert.NotEqual(t, name, k.Name)
		}
		require.NoError(t, c.Close())
	})
}

// overtakenStore lets another process begin a rotation right before each of some saves of
// a new key.
type overtakenStore struct {
	agrenting.Store
	t *testing.T
	n atomic.Int64
}

func (s *overtakenStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	e, _ := sdktest.RecordIn(name, data)
	rec := e.Body
	if !rec.Pending.IsZero() && s.n.Add(-1) >= 0 {
		next, rev, err := sdktest.LoadRecord(ctx, s.Store)
		require.NoError(s.t, err)
		next.Intent = &record.Intent{
			Key: "other", Strategy: agrenting.InPlace.String(), Stage: string(agrenting.StageIssue), From: next.Current.Credential.Fingerprint(),
			Generation: next.Generation + 1, Started: time.Now(),
		}
		_, err = sdktest.SaveHeld(ctx, s.Store, next, rev, "another", 5*time.Second)
		require.NoError(s.t, err)
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestOnlyLiveKeySurvivesConcurrentWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := &overtakenStore{Store: agrenting.MemoryStore(), t: t}
		c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, KeyID: w.Key.ID, Every: -1})
		require.NoError(t, w.Call(c))
		store.n.Store(3)
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, w.Call(c))
		for _, r := range w.Server.Requests() {
			assert.False(t, r.Method == http.MethodDelete && strings.Contains(r.Path, "/credentials/"), "%s %s", r.Method, r.Path)
		}
		sdktest.Advance(time.Minute) // the lease of the other process ends
		require.NoError(t, w.Call(c))
		w.OneLiveKey(store)
		require.NoError(t, c.Close())
	})
}

type panickyWatch struct{ agrenting.Store }

func (panickyWatch) Watch(context.Context, string) iter.Seq2[agrenting.Record, error] {
	return func(func(agrenting.Record, error) bool) { panic("no channel") }
}

func TestPanickingWatchIsStoreFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		var said atomic.Bool
		c := w.Client(panickyWatch{agrenting.MemoryStore()}, agrenting.RotationPolicy{Every: -1}, agrenting.WithObserver(func(e agrenting.Event) {
			if e.Type == agrenting.EventStoreFailed && e.Err != nil && strings.Contains(e.Err.Error(), "no channel") {
				said.Store(true)
			}
		}))
		require.NoError(t, w.Call(c))
		synctest.Wait()
		assert.True(t, said.Load())
		require.NoError(t, c.Close())
	})
}
