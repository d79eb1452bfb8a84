package agrenting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// canary hears all that a client says outside its store: log records, events,
// the texts of errors and what a test prints. It knows the secrets, and finds
// those that have got out.
type canary struct {
	mu      sync.Mutex
	said    bytes.Buffer
	secrets map[string]bool
}

func newCanary(secrets ...string) *canary {
	c := &canary{secrets: map[string]bool{}}
	for _, s := range secrets {
		c.secrets[s] = true
	}
	return c
}

// hide adds secrets that must not show.
func (c *canary) hide(creds ...Credential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cred := range creds {
		if !cred.IsZero() {
			c.secrets[cred.Reveal()] = true
		}
	}
}

// hideRecord hides what a record keeps.
func (c *canary) hideRecord(rec record.Key) {
	for _, cred := range rec.Credentials() {
		c.hide(Credential{cred})
	}
}

// Write implements io.Writer, for log handlers.
func (c *canary) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(b)
}

// hear takes anything that a program may print.
func (c *canary) hear(values ...any) {
	for _, v := range values {
		_, _ = fmt.Fprintf(c, "%v\n%+v\n%#v\n", v, v, v)
		if err, ok := v.(error); ok {
			if e, ok := errors.AsType[*RotationError](err); ok {
				_, _ = fmt.Fprintf(c, "%s %s %s %v\n", e.State, e.Advice, e.Stage, e.Err)
			}
		}
	}
}

// options let a client speak to the canary.
func (c *canary) options() []Option {
	log := slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return []Option{WithLogger(log), WithObserver(func(e Event) { c.hear(e) })}
}

// leaks are the secrets that have got out in any form, each by its end only.
func (c *canary) leaks() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := c.said.String()
	for s := range c.secrets {
		if secret.Redact(text, s) != text {
			out = append(out, "a secret has got out: …"+s[len(s)-4:])
		}
	}
	return out
}

func TestTheCanaryFindsASecret(t *testing.T) {
	t.Parallel()
	const hidden = "0123456789abcdef0123"
	for _, said := range []any{hidden, errors.New("key " + hidden + "!"), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM"} {
		c := newCanary(hidden)
		c.hear(said)
		assert.Len(t, c.leaks(), 1, "%v", said)
	}
	c := newCanary(hidden)
	c.hear(APIKey(hidden), &IssuedSecretError{Err: errors.New("no secret found"), raw: secret.New(hidden)}, Event{Err: &RotationError{new: APIKey(hidden), raw: secret.New(hidden)}})
	assert.Empty(t, c.leaks())
}

func TestARotationThatGoesWrongTellsNoSecret(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]agrentingtest.Fault{
		"no answer":  agrentingtest.DropAfter().Always(),
		"no json":    agrentingtest.MalformedJSON().Always(),
		"failing":    agrentingtest.HandlerError(http.StatusInternalServerError, "").Always(),
		"redirected": agrentingtest.Redirect(http.StatusTemporaryRedirect, "https://elsewhere.test/?key=x").Always(),
	} {
		for _, s := range []Strategy{Overlap, InPlace} {
			t.Run(name+", "+s.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newRotationWorld(t, agrentingtest.WithSessionsDyingWithKey())
					hears := newCanary(w.key.Secret, w.owner.Secret)
					store := &spyStore{Store: MemoryStore(), canary: hears}
					c := w.client(store, RotationPolicy{Strategy: s}, hears.options()...)
					require.NoError(t, w.call(c))
					w.srv.Fault(routeRotate, fault)
					w.srv.Fault("POST /api/v1/agents/{id}/credentials", fault)
					res, err := c.Rotate(t.Context())
					require.Error(t, err)
					hears.hear(err, res, c, c.Status())
					require.NoError(t, c.Close())
					for _, r := range w.srv.Requests() {
						for _, cred := range credentialsOf(r.Header) {
							hears.hide(APIKey(cred[0]))
						}
					}
					assert.Empty(t, hears.leaks())
				})
			})
		}
	}
}

// spyStore tells the canary what it keeps.
type spyStore struct {
	Store
	canary *canary
}

func (s *spyStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	e, _ := recordIn(name, data)
	rec := e.Body
	s.canary.hideRecord(rec)
	return s.Store.Save(ctx, name, data, prev)
}

// quotingStore fails as databases do, which quote what they refuse.
type quotingStore struct {
	spyStore

	fails  func(call int64) bool
	panics bool
	calls  atomic.Int64
}

func (s *quotingStore) quote(b []byte) error {
	if s.panics {
		panic("failing row contains " + string(b))
	}
	return errors.New("failing row contains (" + string(b) + ")")
}

func (s *quotingStore) Load(ctx context.Context, name string) (Record, error) {
	rec, err := s.spyStore.Load(ctx, name)
	if err == nil && s.fails(s.calls.Add(1)) {
		return Record{}, s.quote(rec.Data)
	}
	return rec, err
}

func (s *quotingStore) Save(ctx context.Context, name string, data []byte, prev Revision) (Revision, error) {
	if s.fails(s.calls.Add(1)) {
		return "", s.quote(data)
	}
	return s.spyStore.Save(ctx, name, data, prev)
}

func TestAStoreThatQuotesItsRowsTellsNoSecret(t *testing.T) {
	t.Parallel()
	for _, strategy := range []Strategy{Overlap, InPlace} {
		for _, panics := range []bool{false, true} {
			for first := range int64(14) {
				t.Run(fmt.Sprintf("%s, from call %d, panics %v", strategy, first, panics), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := newRotationWorld(t)
						hears := newCanary(w.key.Secret, w.owner.Secret)
						store := &quotingStore{
							spyStore: spyStore{Store: MemoryStore(), canary: hears},
							panics:   panics, fails: func(call int64) bool { return call > 3+first },
						}
						c := w.client(store, RotationPolicy{Strategy: strategy, KeyID: w.key.ID}, hears.options()...)
						require.NoError(t, w.call(c))
						res, err := c.Rotate(t.Context())
						hears.hear(err, res, c, c.Status(), w.call(c))
						advance(2 * time.Minute)
						hears.hear(c.Status(), w.call(c))
						hears.hear(c.Close())
						assert.Empty(t, hears.leaks())
					})
				})
			}
		}
	}
}
