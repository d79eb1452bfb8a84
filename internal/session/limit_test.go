package session_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/sdktest"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/session"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// fakePlatform issues numbered sessions, except to dead keys.
type fakePlatform struct {
	mu     sync.Mutex
	n      int
	life   time.Duration // of sessions; 0 for no expiry
	err    error         // of Authenticate
	dead   map[string]bool
	doubt  bool     // the platform does not confirm that keys are dead
	called []string // the keys of the exchanges
	left   []bool   // whether the exchange ended its connection
}

func (p *fakePlatform) Authenticate(_ context.Context, _ string, key secret.Credential, leave bool) (*wire.Answer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.called, p.left = append(p.called, key.Reveal()), append(p.left, leave)
	switch {
	case p.err != nil:
		return nil, p.err
	case p.dead[key.Reveal()]:
		return nil, wire.ErrUnauthorized
	}
	p.n++
	data := fmt.Sprintf(`{"session_token":"token-%d"}`, p.n)
	if p.life > 0 {
		data = fmt.Sprintf(`{"session_token":"token-%d","expires_at":%q}`, p.n, time.Now().Add(p.life).Format(time.RFC3339))
	}
	a := &wire.Answer{Status: 200, Body: []byte(data)}
	a.Envelope, a.JSONErr = wire.Decode(a.Body)
	return a, nil
}

func (p *fakePlatform) SessionDead(context.Context, secret.Credential, bool) bool { return false }

func (p *fakePlatform) KeyDead(_ context.Context, key secret.Credential) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead[key.Reveal()] && !p.doubt
}

func (p *fakePlatform) RetryAt(error) (time.Time, bool) { return time.Time{}, false }

func (p *fakePlatform) exchanges() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.called)
}

// fakeKeys is a source of one key.
type fakeKeys struct {
	key        string
	successors int // calls of Successor
}

func (k *fakeKeys) Key(context.Context) (secret.Credential, error) { return apiKey(k.key), nil }

func (k *fakeKeys) Successor(context.Context, secret.Credential) (secret.Credential, error) {
	k.successors++
	return apiKey(k.key), nil
}
func (k *fakeKeys) Lineage(key secret.Credential) string { return key.Fingerprint() }
func (k *fakeKeys) Recheck() time.Duration               { return 0 }
func (k *fakeKeys) Admit(secret.Credential) error        { return nil }

type noReport struct{}

func (noReport) StoreFailed(string, error) {}

func apiKey(text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: text})
}

func newSource(p *fakePlatform, k session.Keys, change func(*session.Config)) *session.Source {
	cfg := session.Config{Endpoint: session.NewEndpoint("/auth", p), Platform: p, Keys: k, Report: noReport{}}
	if change != nil {
		change(&cfg)
	}
	return session.New(cfg)
}

type (
	query = renew.Query[secret.Credential]
	grant = renew.Grant[secret.Credential]
)

// rejected is the query after a 401 to a session.
func rejected(g grant, proven bool) query {
	return query{
		Reason: renew.Rejected, Rejected: g.Value, HasRejected: true, Proven: proven, Current: g.Value, HasCurrent: true,
	}
}

func TestExchangeAfterFailedOneLeavesItsConnection(t *testing.T) {
	t.Parallel()
	p := &fakePlatform{}
	e := session.NewEndpoint("/auth", p)
	for _, err := range []error{nil, errors.New("no response"), errors.New("no response"), nil, nil} {
		p.err = err
		_, got := e.Exchange(t.Context(), apiKey("k1"))
		require.ErrorIs(t, got, err)
	}
	assert.Equal(t, []bool{false, false, true, true, false}, p.left)
}

func TestExchangesInAMinuteAreLimited(t *testing.T) {
	t.Parallel()
	for configured, limit := range map[int]int{0: 8, 3: 3} {
		synctest.Test(t, func(t *testing.T) {
			p := &fakePlatform{}
			s := newSource(p, &fakeKeys{key: "k1"}, func(c *session.Config) { c.MaxExchanges = configured })
			began := time.Now()
			g, err := s.Fetch(t.Context(), query{Reason: renew.First})
			require.NoError(t, err)
			for range limit - 1 {
				sdktest.Advance(time.Second)
				g, err = s.Fetch(t.Context(), rejected(g, true))
				require.NoError(t, err)
			}
			for range 5 {
				_, err = s.Fetch(t.Context(), rejected(g, true))
				l, ok := errors.AsType[*session.LimitError](err)
				require.True(t, ok, "%v", err)
				assert.Equal(t, began.Add(time.Minute), l.Until, "when the first one does not count any more")
				assert.Contains(t, err.Error(), "MaxExchanges")
			}
			assert.Equal(t, limit, p.exchanges())

			sdktest.Advance(time.Until(began.Add(time.Minute)))
			g, err = s.Fetch(t.Context(), rejected(g, true))
			require.NoError(t, err)
			_, err = s.Fetch(t.Context(), rejected(g, true))
			require.Error(t, err, "one at a time")
		})
	}
}

// TestExchangesBecauseOfAnExpiryAreNotLimited has which reasons are subject to the limit.
func TestExchangesBecauseOfAnExpiryAreNotLimited(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query   query
		down    error
		limited bool
	}{
		"first":            {query: query{Reason: renew.First}},
		"early":            {query: query{Reason: renew.Early}},
		"expired":          {query: query{Reason: renew.Expired}},
		"on demand":        {query: query{Reason: renew.Manual}},
		"expired, retried": {query: query{Reason: renew.Expired}, down: errors.New("503"), limited: true},
		"first, retried":   {query: query{Reason: renew.First}, down: errors.New("503"), limited: true},
		"recheck":          {query: query{Reason: renew.Recheck}, limited: true},
		"rejected":         {query: query{Reason: renew.Rejected}, limited: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSource(&fakePlatform{err: c.down}, &fakeKeys{key: "k1"}, func(c *session.Config) { c.MaxExchanges = 2 })
				var err error
				for range 5 {
					_, err = s.Fetch(t.Context(), c.query)
				}
				_, limited := errors.AsType[*session.LimitError](err)
				assert.Equal(t, c.limited, limited, "%v", err)
				_, err = s.Fetch(t.Context(), query{Reason: renew.Rejected})
				_, limited = errors.AsType[*session.LimitError](err)
				assert.True(t, limited, "all exchanges count")
			})
		})
	}
}

func TestUnprovenSessionIsUsedAtLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakePlatform{life: 30 * time.Second}
		s := newSource(p, &fakeKeys{key: "k1"}, func(c *session.Config) { c.MaxExchanges = 1 })
		g, err := s.Fetch(t.Context(), query{Reason: renew.First})
		require.NoError(t, err)
		again, err := s.Fetch(t.Context(), rejected(g, false))
		require.NoError(t, err)
		assert.True(t, again.Value.Equal(g.Value))
		assert.Equal(t, g.Expires, again.Expires)
		_, err = s.Fetch(t.Context(), rejected(g, true))
		require.Error(t, err, "it is dead")
		sdktest.Advance(30 * time.Second)
		_, err = s.Fetch(t.Context(), rejected(g, true))
		require.NoError(t, err, "it has expired")
		assert.Equal(t, 2, p.exchanges())
	})
}

func TestLimitSaysWhyTheLastExchangeFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("503")
		s := newSource(&fakePlatform{err: down}, &fakeKeys{key: "k1"}, func(c *session.Config) { c.MaxExchanges = 2 })
		for range 2 {
			_, err := s.Fetch(t.Context(), query{Reason: renew.First})
			require.ErrorIs(t, err, down)
		}
		_, err := s.Fetch(t.Context(), query{Reason: renew.First})
		_, ok := errors.AsType[*session.LimitError](err)
		require.True(t, ok, "%v", err)
		assert.ErrorIs(t, err, down)
	})
}

func sharedIn(store record.Store, limit int) func(*session.Config) {
	return func(c *session.Config) {
		c.Records, c.MaxExchanges = recordsIn(store), limit
	}
}

func recordsIn(store record.Store) record.Config {
	return record.Config{
		Store: store, Of: record.Identity{Origin: "https://api.agrenting.test", Environment: "production"},
		Mismatch: func(name, _, _, _ string) error { return errors.New(name) },
	}
}

func TestLimitIsSharedThroughTheStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, store := &fakePlatform{}, record.NewMemory()
		var sources []*session.Source
		for range 4 {
			sources = append(sources, newSource(p, &fakeKeys{key: "k1"}, sharedIn(store, 8)))
		}
		g, err := sources[0].Fetch(t.Context(), query{Reason: renew.First})
		require.NoError(t, err)
		for n := range 20 {
			if next, err := sources[n%len(sources)].Fetch(t.Context(), rejected(g, true)); err == nil {
				g = next
			}
			sdktest.Advance(time.Second)
		}
		assert.Equal(t, 8, p.exchanges())
	})
}

// The exchanges in a record are by the clocks of the processes that made them.
func TestLimitWithOtherClocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		offset  time.Duration // of the other clock
		limited bool
	}{
		"same":                  {0, true},
		"30 s behind":           {-30 * time.Second, true},
		"30 s ahead":            {30 * time.Second, true},
		"more than 60 s behind": {-61 * time.Second, false},
		"more than 60 s ahead":  {61 * time.Second, false},
		"years ahead":           {24 * 365 * time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, store := &fakePlatform{}, record.NewMemory()
				slot := record.Sessions(recordsIn(store), apiKey("k1").Fingerprint(), apiKey("k1"))
				e, err := slot.Load(t.Context())
				require.ErrorIs(t, err, record.ErrNoRecord)
				for range 8 {
					e.Body.Exchanges = append(e.Body.Exchanges, time.Now().Add(c.offset))
				}
				_, err = slot.Save(t.Context(), e)
				require.NoError(t, err)
				s := newSource(p, &fakeKeys{key: "k1"}, sharedIn(store, 0))
				_, err = s.Fetch(t.Context(), query{Reason: renew.Rejected})
				l, limited := errors.AsType[*session.LimitError](err)
				require.Equal(t, c.limited, limited, "%v", err)
				if limited {
					assert.LessOrEqual(t, time.Until(l.Until), 2*time.Minute)
					sdktest.Advance(time.Until(l.Until))
				}
				_, err = s.Fetch(t.Context(), query{Reason: renew.Rejected})
				require.NoError(t, err)
			})
		})
	}
}

// Another process has failed once. Its clock may be wrong.
func TestPauseOfOtherClock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		offset, pause time.Duration // of the other clock, and by that clock
		paused        time.Duration
	}{
		"same":                  {0, 20 * time.Second, 20 * time.Second},
		"10 min ahead":          {10 * time.Minute, 250 * time.Millisecond, 250 * time.Millisecond},
		"10 min ahead, lockout": {10 * time.Minute, 5 * time.Minute, 5 * time.Minute},
		"an hour ahead":         {time.Hour, 20 * time.Second, 20 * time.Second},
		"10 min behind":         {-10 * time.Minute, 20 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, store := &fakePlatform{}, record.NewMemory()
				failed := time.Now().Add(c.offset)
				_, err := record.Sessions(recordsIn(store), apiKey("k1").Fingerprint(), apiKey("k1")).Save(t.Context(),
					record.Entry[record.Session]{Body: record.Session{NotBefore: failed.Add(c.pause), Failures: 1, Exchanges: []time.Time{failed}}})
				require.NoError(t, err)
				s := newSource(p, &fakeKeys{key: "k1"}, sharedIn(store, 0))
				for passed := time.Duration(0); passed < c.paused; passed += c.paused / 2 {
					_, err = s.Fetch(t.Context(), query{Reason: renew.First})
					paused, ok := errors.AsType[*session.PausedError](err)
					require.True(t, ok, "%v", err)
					assert.Equal(t, c.paused-passed, time.Until(paused.Until))
					sdktest.Advance(c.paused / 2)
				}
				_, err = s.Fetch(t.Context(), query{Reason: renew.First})
				require.NoError(t, err)
				assert.Equal(t, 1, p.exchanges())
			})
		})
	}
}

// A process with another clock than that of the holder waits for its session.
func TestAwaitedSessionIsYoungByEveryClock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		behind  time.Duration // the holder's clock
		awaited bool
		want    bool
	}{
		"same clock":           {0, true, true},
		"an hour behind":       {time.Hour, true, true},
		"an hour ahead":        {-time.Hour, true, true},
		"stored an hour ago":   {time.Hour, false, false},
		"stored a moment ago":  {0, false, true},
		"stored by clock fast": {-time.Hour, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p, store := &fakePlatform{}, record.NewMemory()
				slot := record.Sessions(recordsIn(store), apiKey("k1").Fingerprint(), apiKey("k1"))
				held, err := slot.Acquire(t.Context(), record.Entry[record.Session]{}, record.Session{Token: "ended"}, record.Terms{
					Holder: "another", Duration: 3 * time.Second, Every: time.Second,
				})
				require.NoError(t, err)
				issue := func() {
					sdktest.Advance(time.Second)
					now := time.Now().Add(-c.behind)
					require.NoError(t, held.Release(t.Context(), record.Session{Token: "issued", Issued: now, Expires: now.Add(20 * time.Hour)}))
				}
				if c.awaited {
					go issue()
				} else {
					issue()
				}
				ended := secret.NewSession("ended", time.Time{}, apiKey("k1"))
				g, err := newSource(p, &fakeKeys{key: "k1"}, sharedIn(store, 0)).Fetch(t.Context(), rejected(grant{Value: ended}, true))
				require.NoError(t, err)
				assert.Equal(t, "issued", g.Value.Reveal())
				assert.Equal(t, c.want, session.Lately(g))
				assert.Zero(t, p.exchanges())
			})
		})
	}
}

func TestKeyIsRefusedOnlyAfterConfirmation(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		confirmed, refused bool
		successors         int
	}{
		"confirmed":     {confirmed: true, refused: true, successors: 1},
		"not confirmed": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &fakePlatform{dead: map[string]bool{"k1": true}, doubt: !c.confirmed}
			keys := &fakeKeys{key: "k1"}
			_, err := newSource(p, keys, nil).Fetch(t.Context(), query{Reason: renew.First})
			require.ErrorIs(t, err, wire.ErrUnauthorized)
			assert.Equal(t, c.refused, session.IsRefused(err))
			assert.Equal(t, c.successors, keys.successors)
			assert.Equal(t, 1, p.exchanges(), "the key was sent once")
		})
	}
}

// A file may have half a key for a moment.
func TestLastAcceptedKeyIsUsedUntilReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakePlatform{dead: map[string]bool{"k": true}}
		keys := &fakeKeys{key: "k1"}
		s := newSource(p, keys, nil)
		g, err := s.Fetch(t.Context(), query{Reason: renew.First})
		require.NoError(t, err)
		keys.key = "k"
		for range 3 {
			g, err = s.Fetch(t.Context(), query{Reason: renew.Expired, Current: g.Value, HasCurrent: true})
			require.NoError(t, err)
		}
		assert.Equal(t, []string{"k1", "k", "k1", "k1", "k1"}, p.called, "the half key was sent once")
		same, err := s.Fetch(t.Context(), query{Reason: renew.Recheck, Current: g.Value, HasCurrent: true})
		require.NoError(t, err)
		assert.True(t, same.Value.Equal(g.Value), "a recheck costs no exchange")
		keys.key = "k2"
		_, err = s.Fetch(t.Context(), query{Reason: renew.Recheck, Current: g.Value, HasCurrent: true})
		require.NoError(t, err)
		assert.Equal(t, []string{"k1", "k", "k1", "k1", "k1", "k2"}, p.called)
		used, err := s.Key(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "k2", used.Reveal())
	})
}

func TestKeyFallbackEndsWithTheOldKey(t *testing.T) {
	t.Parallel()
	for name, dead := range map[string]map[string]bool{
		"no key was accepted": {"k": true},
		"the old key is dead": {"k": true, "k1": true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, keys := &fakePlatform{}, &fakeKeys{key: "k"}
			s := newSource(p, keys, nil)
			if dead["k1"] {
				keys.key = "k1"
				_, err := s.Fetch(t.Context(), query{Reason: renew.First})
				require.NoError(t, err)
				keys.key = "k"
			}
			p.dead = dead
			_, err := s.Fetch(t.Context(), query{Reason: renew.Expired})
			require.ErrorIs(t, err, wire.ErrUnauthorized)
			assert.True(t, session.IsRefused(err))
		})
	}
}
