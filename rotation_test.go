package agrenting

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
)

const routeRotate = "POST /api/v1/auth/rotate-key"

// rotationWorld is a platform with an owner, an agent and its key.
type rotationWorld struct {
	t     *testing.T
	srv   *agrentingtest.Server
	owner agrentingtest.Token
	agent *agrentingtest.Agent
	key   agrentingtest.Key
}

func newRotationWorld(t *testing.T, opts ...agrentingtest.Option) *rotationWorld {
	t.Helper()
	opts = append([]agrentingtest.Option{agrentingtest.InMemory(), agrentingtest.WithoutRateLimits()}, opts...)
	w := &rotationWorld{t: t, srv: agrentingtest.NewServer(opts...)}
	t.Cleanup(w.srv.Close)
	user := w.srv.NewUser("owner")
	w.owner = w.srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "owner"})
	w.agent = w.srv.NewAgent(user, agrentingtest.AgentConfig{Name: "worker"})
	w.key = w.srv.NewKey(w.agent.ID)
	return w
}

// client keeps the key in store, which it fills; nil if the policy has a store.
func (w *rotationWorld) client(store Store, p RotationPolicy, opts ...Option) *Client {
	w.t.Helper()
	if p.AgentID == "" {
		p.AgentID = w.agent.ID
	}
	if store != nil {
		opts = append([]Option{WithStore(store)}, opts...)
	}
	c, err := New(append([]Option{
		WithoutEnvironment(), WithBaseURL(w.srv.URL), WithTransport(w.srv.Transport()),
		WithCredential(APIKey(w.key.Secret)), WithRotation(p),
	}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *rotationWorld) call(c *Client) error {
	_, err := c.Do(w.t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
	return err
}

// oneLiveKey asserts what every rotation must end with: one live key, and it is
// the store's.
func (w *rotationWorld) oneLiveKey(store Store) record.Key {
	w.t.Helper()
	rec, _, err := loadRecord(w.t.Context(), store)
	require.NoError(w.t, err)
	assert.Nil(w.t, rec.Intent)
	assert.True(w.t, rec.Pending.IsZero())
	assert.Len(w.t, w.srv.LiveKeys(w.agent.ID), 1)
	assert.True(w.t, w.srv.KeyAlive(rec.Current.Credential.Reveal()), "the live key is the one in the store")
	return rec
}

func TestRotationReplacesTheKeyAndRevokesTheOldOne(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		strategy Strategy
		owner    bool
		broken   bool
		want     Strategy
	}{
		"overlap by the key itself": {strategy: Overlap, want: Overlap},
		"overlap by the owner":      {strategy: Overlap, owner: true, want: Overlap},
		"in place":                  {strategy: InPlace, want: InPlace},
		"in place with an owner":    {strategy: InPlace, owner: true, want: InPlace},
		"chosen":                    {want: Overlap},
		"in place, odd answer":      {strategy: InPlace, broken: true, want: InPlace},
	} {
		for _, session := range []bool{false, true} {
			full := name
			if session {
				full += ", with sessions"
			}
			t.Run(full, func(t *testing.T) {
				t.Parallel()
				var opts []agrentingtest.Option
				if tc.broken {
					opts = append(opts, agrentingtest.WithBrokenKeyAnswers())
				}
				w := newRotationWorld(t, opts...)
				store := MemoryStore()
				p := RotationPolicy{Strategy: tc.strategy}
				if tc.owner {
					p.Owner = Static(UserToken(w.owner.Secret))
				}
				var copts []Option
				if session {
					copts = append(copts, WithSession())
				}
				c := w.client(store, p, copts...)
				require.NoError(t, w.call(c))
				for n := range 3 {
					rot, err := c.Rotate(t.Context())
					require.NoError(t, err)
					assert.Equal(t, tc.want, rot.Strategy)
					assert.Equal(t, uint64(n+2), rot.Generation)
					require.NoError(t, w.call(c))
					rec := w.oneLiveKey(store)
					assert.Equal(t, rec.Current.Credential.Fingerprint(), rot.To)
					assert.NotEqual(t, rot.From, rot.To)
				}
				assert.False(t, w.srv.KeyAlive(w.key.Secret))
			})
		}
	}
}

// load runs workers that call the platform until stop, and reports failures.
func (w *rotationWorld) load(c *Client, workers int) (stop func() (calls, failed int64)) {
	var calls, failed atomic.Int64
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				method, in := http.MethodGet, any(nil)
				if (i+n)%5 == 0 { // a body that can be sent only once
					method = http.MethodPost
					in = struct{ *strings.Reader }{strings.NewReader(`{"agent_id":"` + w.agent.ID + `","task_type":"test"}`)}
				}
				calls.Add(1)
				_, err := c.Do(context.WithoutCancel(ctx), method, "/api/v1/tasks", in, nil, CallHeader("Content-Type", "application/json"))
				if err != nil {
					failed.Add(1)
					w.t.Error(err)
				}
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		wg.Wait()
		return calls.Load(), failed.Load()
	}
}

func TestNoRequestFailsThroughRotationsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		for _, session := range []bool{false, true} {
			name := s.String()
			var opts []agrentingtest.Option
			var copts []Option
			if session {
				name += " with sessions that die with their key"
				opts = append(opts, agrentingtest.WithSessionsDyingWithKey())
				copts = append(copts, WithSession())
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newRotationWorld(t, opts...)
				store := MemoryStore()
				c := w.client(store, RotationPolicy{Strategy: s}, copts...)
				require.NoError(t, w.call(c))
				stop := w.load(c, 8)
				for range 20 {
					_, err := c.Rotate(t.Context())
					require.NoError(t, err)
				}
				calls, failed := stop()
				assert.Zero(t, failed)
				assert.Positive(t, calls)
				w.oneLiveKey(store)
				assert.Equal(t, 20, int(w.srv.Stats().KeysRevoked))
			})
		}
	}
}

func TestRotationHappensByItselfWhenTheKeyIsDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		c := w.client(store, RotationPolicy{})
		require.NoError(t, w.call(c))
		advance(80 * 24 * time.Hour)
		require.NoError(t, w.call(c))
		require.True(t, w.srv.KeyAlive(w.key.Secret), "too early")
		advance(11 * 24 * time.Hour)
		synctest.Wait()
		assert.False(t, w.srv.KeyAlive(w.key.Secret))
		assert.Equal(t, uint64(2), w.oneLiveKey(store).Generation)
		advance(300 * 24 * time.Hour)
		synctest.Wait()
		assert.InDelta(t, 5, w.oneLiveKey(store).Generation, 1)
		require.NoError(t, c.Close())
	})
}

func TestLostAnswerOfAnInPlaceRotationIsFetchedAgain(t *testing.T) {
	t.Parallel()
	for name, owner := range map[string]bool{"by a session": false, "by the owner": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newRotationWorld(t)
			store := MemoryStore()
			p := RotationPolicy{Strategy: InPlace}
			if owner {
				p.Owner = Static(UserToken(w.owner.Secret))
			}
			c := w.client(store, p)
			require.NoError(t, w.call(c))
			w.srv.Fault(routeRotate, agrentingtest.DropAfter().Times(2))
			_, err := c.Rotate(t.Context())
			require.NoError(t, err)
			require.NoError(t, w.call(c))
			w.oneLiveKey(store)
			assert.Equal(t, 1, int(w.srv.Stats().Rotations), "it was rotated once")
		})
	}
}

// faultyStore refuses to save, after a number of successes.
type faultyStore struct {
	Store
	refuse atomic.Bool
	spare  atomic.Int64
}

func (s *faultyStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if s.refuse.Load() && s.spare.Add(-1) < 0 {
		return "", errors.New("disk full")
	}
	return s.Store.Save(ctx, name, data, prev)
}

func TestStoreThatRefusesTheNewKeyDoesNotCostIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := &faultyStore{Store: MemoryStore()}
		c := w.client(store, RotationPolicy{Strategy: InPlace})
		require.NoError(t, w.call(c))
		store.refuse.Store(true)
		store.spare.Store(2) // the intent, and its lifeline
		_, err := c.Rotate(t.Context())
		e, ok := errors.AsType[*RotationError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, StagePersist, e.Stage)
		cred, ok := e.NewCredential()
		require.True(t, ok)
		assert.True(t, w.srv.KeyAlive(cred.Reveal()))
		require.NoError(t, w.call(c), "the process goes on with it")
		store.refuse.Store(false)
		advance(2 * time.Minute)
		w.oneLiveKey(store)
		require.NoError(t, w.call(c))
		require.NoError(t, c.Close())
	})
}

func TestAnswerWithoutAKnownNameForTheKeyIsKeptForItsFinder(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t, agrentingtest.WithRotateKeyField("brand_new_name"))
	store := MemoryStore()
	c := w.client(store, RotationPolicy{Strategy: InPlace})
	require.NoError(t, w.call(c))
	_, err := c.Rotate(t.Context())
	e, ok := errors.AsType[*RotationError](err)
	require.True(t, ok, "%v", err)
	_, after, found := strings.Cut(string(e.RawAnswer()), `"brand_new_name":"`)
	require.True(t, found)
	hidden, _, _ := strings.Cut(after, `"`)
	assert.True(t, w.srv.KeyAlive(hidden))
	assert.NotContains(t, err.Error(), hidden)
}

func TestProcessesAdoptEachOthersRotations(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	path := filepath.Join(t.TempDir(), "keys", "key.json")
	var clients []*Client
	for range 4 {
		store, err := FileStore(path)
		require.NoError(t, err)
		c := w.client(store, RotationPolicy{Strategy: InPlace, Grace: -1})
		require.NoError(t, w.call(c))
		clients = append(clients, c)
	}
	for i, c := range clients {
		_, err := c.Rotate(t.Context())
		require.NoError(t, err, "rotation %d", i)
		for _, other := range clients {
			require.NoError(t, w.call(other))
		}
	}
	store, err := FileStore(path)
	require.NoError(t, err)
	rec := w.oneLiveKey(store)
	assert.Equal(t, uint64(5), rec.Generation)
	assert.Len(t, rec.Ancestors, 4)
}

func TestRotationStartedByAllAtOnceHappensOneAtATime(t *testing.T) {
	t.Parallel()
	for _, s := range []Strategy{Overlap, InPlace} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			w := newRotationWorld(t)
			path := filepath.Join(t.TempDir(), "keys", "key.json")
			var wg sync.WaitGroup
			var made, adopted atomic.Int64
			for range 8 {
				store, err := FileStore(path)
				require.NoError(t, err)
				c := w.client(store, RotationPolicy{Strategy: s, Grace: -1})
				wg.Go(func() {
					rot, err := c.Rotate(t.Context())
					if !assert.NoError(t, err) {
						return
					}
					if rot.Adopted {
						adopted.Add(1)
					} else {
						made.Add(1)
					}
					assert.NoError(t, w.call(c))
				})
			}
			wg.Wait()
			assert.Equal(t, int64(8), made.Load()+adopted.Load())
			store, err := FileStore(path)
			require.NoError(t, err)
			rec := w.oneLiveKey(store)
			assert.Equal(t, uint64(made.Load())+1, rec.Generation)
		})
	}
}

func TestSeedIsIgnoredOnceRotatedAndAdoptedWhenPutThereByHand(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newRotationWorld(t)
		store := MemoryStore()
		c := w.client(store, RotationPolicy{Strategy: InPlace})
		_, err := c.Rotate(t.Context())
		require.NoError(t, err)
		require.NoError(t, c.Close())

		again := w.client(store, RotationPolicy{}) // the environment still names the first key
		require.NoError(t, w.call(again))
		require.NoError(t, again.Close())

		rec, _, err := loadRecord(t.Context(), store)
		require.NoError(t, err)
		w.srv.RevokeKey(rec.Current.ID) // somebody revoked it by hand
		w.key = w.srv.NewKey(w.agent.ID)
		byHand := w.client(store, RotationPolicy{})
		require.NoError(t, w.call(byHand))
		rec = w.oneLiveKey(store)
		assert.Equal(t, w.key.Secret, rec.Current.Credential.Reveal())
		assert.Equal(t, uint64(3), rec.Generation)
		require.NoError(t, byHand.Close())
	})
}

func TestRotationNeedsAStoreThatCanBeWritten(t *testing.T) {
	t.Parallel()
	w := newRotationWorld(t)
	plain, err := New(WithoutEnvironment(), WithCredential(APIKey(w.key.Secret)))
	require.NoError(t, err)
	_, err = plain.Rotate(t.Context())
	require.ErrorIs(t, err, ErrReadOnlyStore)
	require.ErrorContains(t, err, "FileStore")

	c := w.client(refusing(storeWith(APIKey(w.key.Secret)), ErrReadOnlyStore), RotationPolicy{})
	require.NoError(t, w.call(c))
	_, err = c.Rotate(t.Context())
	require.ErrorIs(t, err, ErrReadOnlyStore)
	assert.True(t, w.srv.KeyAlive(w.key.Secret), "nothing was done")

	_, err = New(WithoutEnvironment(), WithCredential(APIKey(w.key.Secret)), WithRotation(RotationPolicy{}))
	require.ErrorIs(t, err, ErrInvalidOption)
}
