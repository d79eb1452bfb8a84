package agrenting_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestTheCanaryFindsASecret(t *testing.T) {
	t.Parallel()
	const hidden = "0123456789abcdef0123"
	for _, said := range []any{hidden, errors.New("key " + hidden + "!"), "MDEyMzQ1Njc4OWFiY2RlZjAxMjM"} {
		c := sdktest.NewCanary(hidden)
		c.Hear(said)
		assert.Len(t, c.Leaks(), 1, "%v", said)
	}
	c := sdktest.NewCanary(hidden)
	c.Hear(agrenting.APIKey(hidden), agrenting.IssuedErrorWith(errors.New("no secret found"), hidden), agrenting.Event{Err: agrenting.RotationErrorWith(agrenting.APIKey(hidden), hidden)})
	assert.Empty(t, c.Leaks())
}

func TestCanarySkipsOnlyCleanTexts(t *testing.T) {
	t.Parallel()
	const format = "rotated at %s: %v\n"
	first, second := "ap_"+strings.Repeat("5afe984f88", 4), "ap_"+strings.Repeat("0badc0ffee", 4)
	var clean sdktest.CleanTexts
	leaks := func(hidden, text string) []string {
		c := sdktest.NewCanary(hidden)
		c.Skip(&clean)
		_, _ = fmt.Fprintf(c, format, "12:30:01", text)
		return c.Leaks()
	}
	assert.Empty(t, leaks(first, "sha256:5afe984f88"))
	assert.Empty(t, leaks(second, "sha256:0badc0ffee"))
	assert.Empty(t, leaks(first, "ap_"+strings.Repeat("1234567890", 4)), "it hides another secret of this length")
	for range 2 { // what has leaked once is not clean
		assert.Len(t, leaks(first, first), 1)
		assert.Len(t, leaks(second, second), 1)
		assert.Len(t, leaks(second, base64.StdEncoding.EncodeToString([]byte(second))), 1)
		assert.Len(t, leaks(second, fmt.Sprintf("%d", []byte(second))), 1)
	}
}

func TestFailedRotationShowsNoSecret(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]agrentingtest.Fault{
		"no response": agrentingtest.DropAfter().Always(),
		"no json":     agrentingtest.MalformedJSON().Always(),
		"failing":     agrentingtest.HandlerError(http.StatusInternalServerError, "").Always(),
		"redirected":  agrentingtest.Redirect(http.StatusTemporaryRedirect, "https://elsewhere.test/?key=x").Always(),
	} {
		for _, s := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
			t.Run(name+", "+s.String(), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionsEndingWithKey())
					hears := sdktest.NewCanary(w.Key.Secret, w.Owner.Secret)
					store := &sdktest.SpyStore{Store: agrenting.MemoryStore(), Canary: hears}
					c := w.Client(store, agrenting.RotationPolicy{Strategy: s}, hears.Options()...)
					require.NoError(t, w.Call(c))
					w.Server.Fault(sdktest.RouteRotate, fault)
					w.Server.Fault("POST /api/v1/agents/{id}/credentials", fault)
					res, err := c.Rotate(t.Context())
					require.Error(t, err)
					hears.Hear(err, res, c, c.Status())
					require.NoError(t, c.Close())
					for _, r := range w.Server.Requests() {
						for _, cred := range sdktest.CredentialsOf(r.Header) {
							hears.Hide(agrenting.APIKey(cred[0]))
						}
					}
					assert.Empty(t, hears.Leaks())
				})
			})
		}
	}
}

// quotingStore fails as databases do, which quote what they refuse.
type quotingStore struct {
	sdktest.SpyStore

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

func (s *quotingStore) Load(ctx context.Context, name string) (agrenting.Record, error) {
	rec, err := s.SpyStore.Load(ctx, name)
	if err == nil && s.fails(s.calls.Add(1)) {
		return agrenting.Record{}, s.quote(rec.Data)
	}
	return rec, err
}

func (s *quotingStore) Save(ctx context.Context, name string, data []byte, prev agrenting.Revision) (agrenting.Revision, error) {
	if s.fails(s.calls.Add(1)) {
		return "", s.quote(data)
	}
	return s.SpyStore.Save(ctx, name, data, prev)
}

func TestStoreErrorsShowNoSecret(t *testing.T) {
	t.Parallel()
	for _, strategy := range []agrenting.Strategy{agrenting.Overlap, agrenting.InPlace} {
		for _, panics := range []bool{false, true} {
			for first := range int64(14) {
				t.Run(fmt.Sprintf("%s, from call %d, panics %v", strategy, first, panics), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						w := sdktest.NewRotationWorld(t)
						hears := sdktest.NewCanary(w.Key.Secret, w.Owner.Secret)
						store := &quotingStore{
							SpyStore: sdktest.SpyStore{Store: agrenting.MemoryStore(), Canary: hears},
							panics:   panics, fails: func(call int64) bool { return call > 3+first },
						}
						c := w.Client(store, agrenting.RotationPolicy{Strategy: strategy, KeyID: w.Key.ID}, hears.Options()...)
						require.NoError(t, w.Call(c))
						res, err := c.Rotate(t.Context())
						hears.Hear(err, res, c, c.Status(), w.Call(c))
						sdktest.Advance(2 * time.Minute)
						hears.Hear(c.Status(), w.Call(c))
						hears.Hear(c.Close())
						assert.Empty(t, hears.Leaks())
					})
				})
			}
		}
	}
}
