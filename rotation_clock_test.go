package agrenting

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A rotation in place whose answer was lost has been mended by its owner: the
// current key is one that the owner has created under the intent's marker, and
// what is left is to look for the lost one. The process that does this is
// overtaken by one whose clock is ahead, which rotates in place meanwhile: the
// platform hands the name, and so the marker, on to the newest key.
func TestWhatAnOwnersKeyLeftBehindIsForgottenWithoutHarmToTheNextKey(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{30 * time.Second, 60 * time.Second, 180 * time.Second, 300 * time.Second} {
		for n := range 14 {
			for _, f := range aheadFaults {
				t.Run(fmt.Sprintf("%v, operation %d: %s", by, n, f), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := newModelWorld(t, modelCase{strategy: InPlace, owner: true})
						w.ahead = by
						intent := &Intent{
							Key: newUUID(), Strategy: InPlace, Stage: StageForget, From: APIKey(w.seed).Fingerprint(), Generation: 2,
							Started: time.Now(), Known: []string{"gone"},
						}
						key := w.srv.LiveKeys(w.agent)[0]
						admin, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithCredential(UserToken(w.owner)), WithAgentID(w.agent))
						require.NoError(t, err)
						k, err := admin.Keys.Create(t.Context(), w.agent, intent.marker())
						require.NoError(t, err)
						_ = admin.Close()
						w.srv.RevokeKey(key.ID)
						rec := KeyRecord{
							Generation: 2, Intent: intent, Ancestors: []string{intent.From},
							Current: StoredKey{Credential: k.Credential, ID: k.ID, AgentID: w.agent, Created: time.Now()},
						}
						_, err = w.store.Save(t.Context(), rec, "")
						require.NoError(t, err)
						first := w.start(w.seed)
						w.arm(modelPlan{n: f})
						err = first.rotate()
						ops := w.disarm()
						rec, _, lerr := w.store.Load(t.Context())
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
}

// The monotonic clock stands still while a machine sleeps, and means nothing to
// other processes.
func TestWhatARotationStoresGoesByTheWallClock(t *testing.T) {
	t.Parallel()
	for _, strategy := range []Strategy{InPlace, Overlap} {
		t.Run(strategy.String(), func(t *testing.T) {
			t.Parallel()
			w := newRotationWorld(t) // in no bubble: these have no monotonic clock
			leases := 0
			store := &wallStore{KeyStore: MemoryStore(Credential{}), saved: func(rec KeyRecord) {
				times := []time.Time{rec.Current.Created, rec.Pending.Created, rec.Previous.Created}
				if rec.Intent != nil {
					leases++
					times = append(times, rec.Intent.Lease, rec.Intent.Started)
				}
				for n, at := range times {
					assert.NotContains(t, at.String(), " m=", "time %d", n)
				}
			}}
			c := w.client(store, RotationPolicy{Strategy: strategy, Grace: time.Millisecond})
			require.NoError(t, w.call(c))
			_, err := c.Rotate(t.Context())
			require.NoError(t, err)
			assert.Positive(t, leases)
			require.Contains(t, time.Now().String(), " m=", "what is looked for")
			require.NoError(t, c.Close())
		})
	}
}

// wallStore shows what is saved, before the store has made a copy.
type wallStore struct {
	KeyStore

	saved func(KeyRecord)
}

func (s *wallStore) Save(ctx context.Context, rec KeyRecord, prev Revision) (Revision, error) {
	s.saved(rec)
	return s.KeyStore.Save(ctx, rec, prev)
}

func TestARotationSurvivesAnyOneTakeoverByAFastClock(t *testing.T) {
	t.Parallel()
	run := newModelRun(t)
	for _, tc := range modelCases() {
		clean := runModel(t, tc, nil, itStays)
		for n, op := range clean.ops[:clean.first] {
			for _, f := range aheadFaults {
				for _, ending := range []modelEnding{itStays, itDies} {
					run.scenario(tc, modelPlan{n: f}, ending, fmt.Sprintf("operation %d, %s: %s", n, op, f), nil)
				}
			}
		}
	}
	run.wait()
}
