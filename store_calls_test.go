package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pacedStore takes a while for each call, and respects its context.
type pacedStore struct {
	Store
	calls atomic.Int32
}

func (s *pacedStore) Load(ctx context.Context, name string) (Record, error) {
	s.calls.Add(1)
	select {
	case <-time.After(200 * time.Millisecond):
		return s.Store.Load(ctx, name)
	case <-ctx.Done():
		return Record{}, ctx.Err()
	}
}

func TestConcurrentStoreCallsAreNotDelayed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		port := recordStore(&pacedStore{Store: MemoryStore()})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		for range 10 * maxHung {
			wg.Go(func() {
				_, err := port.Load(ctx, "key")
				assert.ErrorIs(t, err, ErrNoRecord)
			})
		}
		wg.Wait()
	})
}

func TestStoreIsNotCalledAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		<-ctx.Done()
		s := &pacedStore{Store: MemoryStore()}
		for range 50 {
			_, err := recordStore(s).Load(ctx, "key")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NotContains(t, err.Error(), "ignores its context")
		}
		assert.Zero(t, s.calls.Load())
	})
}

func TestCanceledContextIsNotReportedAsStoreError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		quit := errors.New("quit")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(quit)
		port := recordStore(&pacedStore{Store: MemoryStore()})
		for range 50 {
			_, err := port.Load(ctx, "key")
			require.ErrorIs(t, err, context.Canceled)
			require.NotContains(t, err.Error(), "has not returned")
		}
		hung := &hungStore{Store: MemoryStore(), hangs: "load", stop: make(chan struct{})}
		defer close(hung.stop)
		_, err := recordStore(hung).Load(ctx, "key")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, quit)
	})
}

// lateStore saves when it is told to.
type lateStore struct {
	Store
	open  chan struct{}
	saved chan string
}

func (s *lateStore) Save(_ context.Context, _ string, data []byte, _ Revision) (Revision, error) {
	<-s.open
	s.saved <- string(data)
	return "1", nil
}

func TestAbandonedSaveUsesCopyOfData(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &lateStore{Store: MemoryStore(), open: make(chan struct{}), saved: make(chan string, 1)}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		data := []byte("record")
		_, err := recordStore(s).Save(ctx, "key", data, "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		clear(data)
		close(s.open)
		assert.Equal(t, "record", <-s.saved)
	})
}

type brokenError struct{ text *string }

func (e *brokenError) Error() string { return *e.text }

// brokenWatcher yields an error that panics when it is printed.
type brokenWatcher struct{ Store }

func (brokenWatcher) Watch(context.Context, string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { yield(Record{}, new(brokenError)) }
}

func TestPanickingWatcherReturnsError(t *testing.T) {
	t.Parallel()
	for _, err := range recordStore(brokenWatcher{MemoryStore()}).Watch(t.Context(), "key") {
		require.ErrorContains(t, err, "the store panicked")
	}
}

func TestListRefusesANilContext(t *testing.T) {
	t.Parallel()
	c, err := New(WithoutEnvironment(), WithAnonymous())
	require.NoError(t, err)
	defer c.Close()
	for _, err := range List[int](nil, c, "/x") { //nolint:staticcheck // it is the mistake
		require.ErrorIs(t, err, ErrInvalidOption)
	}
}

func TestSourceErrorKeepsRetryTime(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"6ba7b810-9dad-11d1-80b4-00c04fd430c8", "4bf92f3577b34da6a3ce929d0e0e4736"} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			src := CredentialSourceFunc(func(context.Context) (Credential, error) {
				asked++
				return Credential{}, fmt.Errorf("broker: %w", &APIError{StatusCode: http.StatusForbidden, RequestID: id, RetryAfter: time.Hour})
			})
			c, err := New(WithoutEnvironment(), WithCredentialSource(src), WithTransport(tripFunc(func(*http.Request) (*http.Response, error) {
				return nil, io.ErrUnexpectedEOF
			})))
			require.NoError(t, err)
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.Error(t, err)
			assert.Equal(t, 1, asked, "a refusal is not asked about again")
			require.NoError(t, c.Close())
		})
	}
}

func TestBodyRefersToNoRequest(t *testing.T) {
	t.Parallel()
	const key = "Zq7Wm3Xp9Rt5Kv2Ln8Yd4"
	c, err := New(WithoutEnvironment(), WithCredential(APIKey(key)), WithTransport(tripFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	})))
	require.NoError(t, err)
	defer c.Close()
	req, err := http.NewRequestWithContext(ContextWithTrace(t.Context(), new(Trace)), http.MethodGet, "https://agrenting.com/x", http.NoBody)
	require.NoError(t, err)
	resp, err := c.HTTPClient().Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.False(t, refersTo[*http.Request](reflect.ValueOf(resp.Body), 6))
}

// refersTo reports whether a value, or what it has in its fields, is a T.
func refersTo[T any](v reflect.Value, depth int) bool {
	if depth == 0 || !v.IsValid() {
		return false
	}
	if v.Type() == reflect.TypeFor[T]() {
		return true
	}
	switch v.Kind() { //nolint:exhaustive // others have no fields
	case reflect.Pointer, reflect.Interface:
		return refersTo[T](v.Elem(), depth-1)
	case reflect.Struct:
		for _, field := range v.Fields() {
			if refersTo[T](field, depth-1) {
				return true
			}
		}
	}
	return false
}

func TestCookiesOfTheCallerAreNotShown(t *testing.T) {
	t.Parallel()
	c, err := New(WithoutEnvironment(), WithCredential(APIKey("Zq7Wm3Xp9Rt5Kv2Ln8Yd4")), WithRetryPolicy(RetryPolicy{MaxAttempts: 1}),
		WithTransport(tripFunc(func(r *http.Request) (*http.Response, error) { return nil, fmt.Errorf("sent %v", r.Header) })))
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil, CallHeader("Cookie", "session=aB3dEf6hIj9k"))
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "aB3dEf6hIj9k")
}
