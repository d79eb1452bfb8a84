package rotation_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/rotation"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/sdktest/sample"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// The owner has repaired a rotation in place whose response was lost: the current
// key was created with the owner's credential under the intent's marker, and the
// lost key remains to be looked for. The process that does this is stopped while
// another one rotates in place: the platform passes the name, and so the marker,
// on to the newest key.
func TestLeftoverOfOwnersKeyIsForgotten(t *testing.T) {
	t.Parallel()
	for n := range 14 {
		for _, f := range stopFaults {
			t.Run(fmt.Sprintf("operation %d: %s", n, f), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newModelWorld(t, rotation.ModelCase{Strategy: rotation.InPlace, Owner: true})
					intent := &record.Intent{
						Key: wire.NewUUID(), Strategy: agrenting.InPlace.String(), Stage: string(agrenting.StageForget), From: agrenting.APIKey(w.seed).Fingerprint(), Generation: 2,
						Started: time.Now(), Known: []string{"gone"},
					}
					key := w.srv.LiveKeys(w.agent)[0]
					admin, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.srv.URL), agrenting.WithTransport(w.srv.Transport()), agrenting.WithCredential(agrenting.UserToken(w.owner)), agrenting.WithAgentID(w.agent))
					require.NoError(t, err)
					k, err := admin.Keys.Create(t.Context(), w.agent, sdktest.Marker(intent))
					require.NoError(t, err)
					_ = admin.Close()
					w.srv.RevokeKey(key.ID)
					rec := record.Key{
						Agent: w.agent, Generation: 2, Intent: intent, Ancestors: []string{intent.From},
						Current: record.StoredKey{Credential: sdktest.SecretCredential(k.Credential), ID: k.ID, Created: time.Now()},
					}
					_, err = sdktest.SaveRecord(t.Context(), w.store, rec, "")
					require.NoError(t, err)
					first := w.start(w.seed)
					w.arm(modelPlan{n: f})
					err = first.rotate()
					ops := w.disarm()
					rec, _, lerr := sdktest.LoadRecord(t.Context(), w.store)
					require.NoError(t, lerr)
					if !w.srv.KeyAlive(rec.Current.Credential.Reveal()) {
						t.Errorf("the only live key was revoked (%v)\n%v", err, ops)
						for _, r := range w.srv.Requests() {
							t.Log(r.ReceivedAt.Format("15:04:05.000"), r.Method, r.Path, r.Status, r.CredentialID, r.Fault)
						}
					}
					w.end()
				})
			})
		}
	}
}

// The monotonic clock stops while a machine sleeps, and is meaningless to
// other processes.
func TestStoredTimesUseWallClock(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.InPlace, agrenting.Overlap} {
		t.Run(strategy.String(), func(t *testing.T) {
			t.Parallel()
			w := sdktest.NewRotationWorld(t) // in no bubble: these have no monotonic clock
			intents := 0
			store := &wallStore{Store: agrenting.MemoryStore(), saved: func(rec record.Key) {
				times := []time.Time{rec.Current.Created, rec.Pending.Created, rec.Previous.Created}
				if rec.Intent != nil {
					intents++
					times = append(times, rec.Intent.Started, rec.Intent.GraceEnd)
				}
				for n, at := range times {
					assert.NotContains(t, at.String(), " m=", "time %d", n)
				}
			}}
			c := w.Client(store, agrenting.RotationPolicy{Strategy: strategy, Grace: time.Millisecond})
			require.NoError(t, w.Call(c))
			_, err := c.Rotate(t.Context())
			require.NoError(t, err)
			assert.Positive(t, intents)
			require.Contains(t, time.Now().String(), " m=", "what is looked for")
			require.NoError(t, c.Close())
		})
	}
}

// wallStore shows what is saved, before the store has made a copy.
type wallStore struct {
	agrenting.Store

	saved func(record.Key)
}

func (s *wallStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	e, _ := sdktest.RecordIn(name, data)
	rec := e.Body
	s.saved(rec)
	return s.Store.Save(ctx, name, data, prev)
}

func TestRotationSurvivesAStopAtAnyOperation(t *testing.T) {
	t.Parallel()
	run := newModelRun(t)
	for _, tc := range rotation.ModelCases() {
		clean := runModel(t, tc, nil, itStays)
		for n, op := range clean.ops[:clean.first] {
			for i, f := range stopFaults {
				for j, ending := range []modelEnding{itStays, itDies} {
					if sample.Fewer && (n+i+6*j)%12 != 0 {
						continue // the same code runs, and without the detector all of them
					}
					run.scenario(tc, modelPlan{n: f}, ending, fmt.Sprintf("operation %d, %s: %s", n, op, f), nil)
				}
			}
		}
	}
	run.wait()
}
