package record

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// memory is a store in memory whose operations a test can disturb.
type memory struct {
	inner   *Memory
	mu      sync.Mutex
	watched bool
	// before runs before an operation, after one that succeeded; an error is
	// returned in place of the outcome.
	before, after func(op, name string) error
	loads, saves  int
}

func newMemory() *memory { return &memory{inner: NewMemory()} }

func (m *memory) saveCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saves
}

// raw returns a record without disturbance; the zero Raw if there is none.
func (m *memory) raw(name string) Raw {
	raw, _, _ := m.inner.load(name)
	return raw
}

// put replaces a record, whatever its revision is.
func (m *memory) put(name string, raw Raw) {
	m.inner.mu.Lock()
	defer m.inner.mu.Unlock()
	m.inner.recordLocked(name).get = func() Raw { return raw }
}

func (m *memory) step(f func(op, name string) error, op, name string) error {
	if f == nil {
		return nil
	}
	return f(op, name)
}

func (m *memory) Load(ctx context.Context, name string) (Raw, error) {
	if err := ctx.Err(); err != nil {
		return Raw{}, err
	}
	if err := m.step(m.before, "load", name); err != nil {
		return Raw{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads++
	raw, _, err := m.inner.load(name)
	if err != nil {
		return Raw{}, err
	}
	return raw, m.step(m.after, "load", name)
}

func (m *memory) Save(ctx context.Context, name string, data []byte, previous string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := m.step(m.before, "save", name); err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	revision, err := m.inner.Save(context.WithoutCancel(ctx), name, data, previous)
	if err != nil {
		return "", err
	}
	m.saves++
	return revision, m.step(m.after, "save", name)
}

func (m *memory) Watch(ctx context.Context, name string) iter.Seq2[Raw, error] {
	if !m.watched {
		return nil
	}
	return func(yield func(Raw, error) bool) {
		for raw, err := range m.inner.Watch(ctx, name) {
			if err := m.step(m.before, "watch", name); err != nil {
				yield(Raw{}, err)
				return
			}
			if !yield(raw, err) {
				return
			}
		}
	}
}

// clock is a monotonic clock that a test advances.
type clock struct {
	mu  sync.Mutex
	now time.Duration
}

func (c *clock) read() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now += d
}

var errStore = errors.New("the store is unreachable")

type mismatch struct{ name, field, stored, configured string }

func (m mismatch) Error() string { return m.field + ": " + m.stored + ", not " + m.configured }

func slotOf(m Store, c Clock, of Identity) *Slot[Key] {
	return Keys(Config{Store: m, Of: of, Clock: c, Mismatch: func(name, field, stored, configured string) error {
		return mismatch{name, field, stored, configured}
	}})
}

func apiKey(text string) secret.Credential {
	return secret.NewCredential(secret.Material{Kind: secret.KindAPIKey, Secret: text})
}

func keyOf(generation uint64) Key {
	c := apiKey("sk_0123456789")
	return Key{Agent: "a1", Lineage: LineageOf(c), Generation: generation, Current: StoredKey{Credential: c}}
}

func terms(holder string) Terms {
	return Terms{Holder: holder, Duration: 3 * time.Second, Every: time.Second}
}

func mustSave(t *testing.T, s *Slot[Key], e Entry[Key]) Entry[Key] {
	t.Helper()
	e, err := s.Save(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustLoad(t *testing.T, s *Slot[Key]) Entry[Key] {
	t.Helper()
	e, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithCancel(t.Context())
}

// mustSaveBlind saves without a load.
func mustSaveBlind(t *testing.T, m *memory, e Entry[Key]) {
	t.Helper()
	data, err := keyCodec.marshal(e, Identity{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Save(t.Context(), KeyName, data, e.Revision); err != nil {
		t.Fatal(err)
	}
}
