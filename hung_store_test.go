package agrenting

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hungStore is a store whose calls of some operations return only once stop is closed,
// regardless of their context.
type hungStore struct {
	Store
	hangs   string
	stop    chan struct{}
	hanging atomic.Int64
}

func (s *hungStore) hang(operation string) {
	if strings.Contains(s.hangs, operation) {
		s.hanging.Add(1)
		<-s.stop
		s.hanging.Add(-1)
	}
}

func (s *hungStore) Load(ctx context.Context, name string) (Record, error) {
	s.hang("load")
	return s.Store.Load(ctx, name)
}

func (s *hungStore) Save(ctx context.Context, name string, data []byte, previous Revision) (Revision, error) {
	s.hang("save")
	return s.Store.Save(ctx, name, data, previous)
}

// exchanging is a base that answers exchanges with sessions of the given life.
func exchanging(life time.Duration) tripFunc {
	var n atomic.Int64
	return func(r *http.Request) (*http.Response, error) {
		if r.Context().Err() != nil {
			return nil, r.Context().Err()
		}
		if strings.HasSuffix(r.URL.Path, "/authenticate") {
			return reply(http.StatusOK, fmt.Sprintf(`{"data":{"session_token":"token-%d-0123456789","expires_at":%q}}`,
				n.Add(1), time.Now().Add(life).UTC().Format(time.RFC3339)), "Date", time.Now().UTC().Format(http.TimeFormat)), nil
		}
		return reply(http.StatusOK, `{"data":{}}`), nil
	}
}

func TestHungStoreDoesNotBlockRequests(t *testing.T) {
	t.Parallel()
	for _, hangs := range []string{"load", "save", "load and save"} {
		for _, where := range []string{"sessions", "key and sessions"} {
			for _, limit := range []time.Duration{2 * time.Second, 8 * time.Second, 30 * time.Second} {
				t.Run(fmt.Sprint(hangs, ", ", where, ", ", limit), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						s := &hungStore{Store: MemoryStore(), hangs: hangs, stop: make(chan struct{})}
						policy, opts := SessionPolicy{Timeout: limit}, []Option{
							WithoutEnvironment(), WithBaseURL(apiURL), WithCredential(APIKey("ak_hung_0123456789")),
							WithTransport(exchanging(time.Hour)), WithTimeout(0),
						}
						if where == "sessions" {
							policy.Store = s
						} else {
							opts = append(opts, WithStore(s))
						}
						c, err := New(append(opts, WithSession(policy))...)
						require.NoError(t, err)
						start := time.Now()
						_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
						require.NoError(t, err)
						assert.LessOrEqual(t, time.Since(start), limit)
						require.Error(t, c.Status().StoreError)
						close(s.stop)
						_ = c.Close()
						synctest.Wait()
					})
				})
			}
		}
	}
}

func TestHungStoreHoldsFewCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &hungStore{Store: MemoryStore(), hangs: "load", stop: make(chan struct{})}
		port := recordStore(s)
		for n := range 5 * maxHung {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			_, err := port.Load(ctx, "key")
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			if n >= maxHung {
				assert.Equal(t, time.Second, time.Since(start), "callers that repeat calls at once must not spin")
			}
		}
		assert.EqualValues(t, maxHung, s.hanging.Load())
		close(s.stop)
		synctest.Wait()
		_, err := port.Load(t.Context(), "key")
		require.ErrorIs(t, err, ErrNoRecord, "the store is used again once its calls have returned")
	})
}

// slowStore respects its context, and says so in its own words.
type slowStore struct{ Store }

func (slowStore) Load(ctx context.Context, _ string) (Record, error) {
	<-ctx.Done()
	return Record{}, fmt.Errorf("the database did not respond: %w", ctx.Err())
}

func TestStoreErrorAfterContextEndIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := recordStore(slowStore{MemoryStore()}).Load(ctx, "key")
		require.ErrorContains(t, err, "the database did not respond")
		assert.Equal(t, time.Second, time.Since(start))
	})
}

func TestWarningOfAStoreIsLoggedOnce(t *testing.T) {
	t.Parallel()
	folder := openMount(t)
	plain, err := FileStore(folder)
	require.NoError(t, err)
	s, err := Namespace(plain, "writer")
	require.NoError(t, err)
	s, err = Sealed(s, "test", NewSealingKey())
	require.NoError(t, err)
	_, err = s.Load(t.Context(), "key")
	require.ErrorIs(t, err, ErrNoRecord, "without a client, it is not told")
	var log bytes.Buffer
	for range 2 {
		c, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithCredential(APIKey("ak_warning_0123456789")),
			WithTransport(exchanging(time.Hour)), WithSession(), WithStore(s), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
	assert.Equal(t, 1, strings.Count(log.String(), "root of a mount"), log.String())
	assert.Contains(t, log.String(), "level=WARN")
	assert.Contains(t, log.String(), folder)
}
