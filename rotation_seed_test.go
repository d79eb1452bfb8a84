package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// refusingStore can be read, and refuses what is saved with an error, if it has one.
type refusingStore struct {
	Store
	err atomic.Pointer[error]
}

func refusing(store Store, err error) *refusingStore {
	s := &refusingStore{Store: store}
	s.err.Store(&err)
	return s
}

func (s *refusingStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if err := *s.err.Load(); err != nil {
		return "", err
	}
	return s.Store.Save(ctx, name, data, prev)
}

var errDiskFull = errors.New("no space left on device")

func TestAnEmptyStoreThatRefusesTheSeedFailsNobody(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{"read-only": ErrReadOnlyStore, "full": errDiskFull} {
		for _, session := range []bool{false, true} {
			if session {
				name += ", with sessions"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t)
					store := refusing(MemoryStore(), refusal)
					var told atomic.Int64
					opts := []Option{WithObserver(func(e Event) {
						if e.Type == EventStoreFailed {
							told.Add(1)
						}
					})}
					if session {
						opts = append(opts, WithSession())
					}
					c := w.client(store, RotationPolicy{Every: -1, Strategy: InPlace}, opts...)
					for range 600 {
						require.NoError(t, w.call(c))
						advance(time.Second)
					}
					assert.Positive(t, told.Load())
					assert.LessOrEqual(t, told.Load(), int64(30), "it is not told at every look")
					_, err := c.Rotate(t.Context())
					require.ErrorIs(t, err, refusal, "nothing is rotated that could not be saved")
					require.NoError(t, c.Close(), "the seed is where it was")

					c = w.client(store, RotationPolicy{Every: -1, Strategy: InPlace}, opts...)
					require.NoError(t, w.call(c))
					store.err.Store(new(error))
					advance(2 * time.Minute)
					require.NoError(t, w.call(c))
					synctest.Wait() // for the look that the call has caused
					rec := w.oneLiveKey(store)
					assert.Equal(t, w.key.Secret, rec.Current.Credential.Reveal(), "it is saved when it can be")
					_, err = c.Rotate(t.Context())
					require.NoError(t, err)
					require.NoError(t, w.call(c))
					w.oneLiveKey(store)
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

// tellingStore is a store that cannot be written and tells of changes.
type tellingStore struct{ *refusingStore }

func (s tellingStore) Watch(ctx context.Context, name string) iter.Seq2[Record, error] {
	return s.Store.(Watcher).Watch(ctx, name) //nolint:errcheck,forcetypeassert // it is one in memory
}

// Its key has died, and the next one is there by hand: a body that can be sent
// only once would find the dead one again after each look at the store.
func TestADeadKeyInAReadOnlyStoreDoesNotComeBack(t *testing.T) {
	t.Parallel()
	for _, watched := range []bool{false, true} {
		for _, session := range []bool{false, true} {
			t.Run(fmt.Sprintf("watched %v, sessions %v", watched, session), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t)
					w.srv.SetSessionTTL(time.Minute)
					inner := storeWith(APIKey(w.key.Secret))
					var store Store = refusing(inner, ErrReadOnlyStore)
					if watched {
						store = tellingStore{refusing(inner, ErrReadOnlyStore)}
					}
					set, seed := changingSeed(w.srv.NewKey(w.agent.ID).Secret)
					opts := []Option{seed}
					if session {
						opts = append(opts, WithSession())
					}
					c := w.client(store, RotationPolicy{Every: -1}, opts...)
					require.NoError(t, w.call(c))
					once := func() error {
						body := struct{ io.Reader }{strings.NewReader(`{"agent_id":"` + w.agent.ID + `","task_type":"test"}`)}
						_, err := c.Do(t.Context(), http.MethodPost, "/api/v1/tasks", body, nil, CallHeader("Content-Type", "application/json"))
						return err
					}
					goesOn := func(why string) {
						w.srv.RevokeSessions()
						require.NoError(t, w.call(c), why)
						w.srv.ResetLog()
						for range 300 {
							require.NoError(t, once(), why)
							advance(time.Second)
						}
						for _, r := range w.srv.Requests() {
							assert.NotEqual(t, http.StatusUnauthorized, r.Status, why)
						}
					}
					w.srv.RevokeKey(w.key.ID)
					goesOn("the seed does in its place")
					second := w.srv.NewKey(w.agent.ID)
					for _, k := range w.srv.LiveKeys(w.agent.ID) {
						if k.ID != second.ID {
							w.srv.RevokeKey(k.ID)
						}
					}
					set(second.Secret)
					goesOn("and the next seed after it")
					third := w.srv.NewKey(w.agent.ID)
					_, rev, err := loadRecord(t.Context(), inner)
					require.NoError(t, err)
					_, err = saveRecord(t.Context(), inner, record.Key{Generation: 1, Current: record.StoredKey{Credential: secretCredential(APIKey(third.Secret)), Created: wallNow()}}, rev)
					require.NoError(t, err)
					advance(2 * time.Minute)
					require.NoError(t, w.call(c))
					w.srv.RevokeKey(second.ID)
					goesOn("who provides the key has replaced it")
					require.NoError(t, c.Close())
				})
			})
		}
	}
}

func TestAnEmptyStoreWithoutASeedTellsWhereOneWasLookedFor(t *testing.T) {
	t.Parallel()
	for _, session := range []bool{false, true} {
		w := newRotationWorld(t)
		opts := []Option{WithLookupEnv(func(string) (string, bool) { return "", false }), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithStore(MemoryStore())}
		if session {
			opts = append(opts, WithSession())
		}
		c, err := New(opts...)
		require.NoError(t, err)
		err = w.call(c)
		require.ErrorIs(t, err, ErrNoCredential)
		require.ErrorContains(t, err, "store is empty")
		e, ok := errors.AsType[*NoCredentialError](err)
		require.True(t, ok, "%v", err)
		assert.NotEmpty(t, e.Tried)
		require.NoError(t, c.Close())
	}
}

// The doc comment of RotationPolicy.AgentID says so.
func TestARotationInPlaceLearnsTheAgentForThoseThatFollow(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	store := storeWith(APIKey(w.key.Secret))
	c, err := New(WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()), WithStore(store))
	require.NoError(t, err)
	for _, want := range []Strategy{InPlace, Overlap} {
		rot, err := c.Rotate(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, rot.Strategy)
		w.oneLiveKey(store)
	}
	require.NoError(t, c.Close())
}
