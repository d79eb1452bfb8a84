package agrenting

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// eventLog collects events.
type eventLog struct {
	mu     sync.Mutex
	events []Event
}

func (l *eventLog) observe(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

func (l *eventLog) all() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

func TestEventsTellTheStoryOfACredential(t *testing.T) {
	t.Parallel()
	src, seen := newMint("first-key"), &eventLog{}
	p := newPlatform("first-key")
	c := clientOver(t, p, src, WithObserver(seen.observe))
	do := func() error {
		_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		return err
	}
	require.NoError(t, do())
	src.replace(APIKey("second-key"))
	p.accept("second-key")
	require.NoError(t, do())
	p.accept("third-key") // which the source does not know yet
	require.ErrorIs(t, do(), ErrUnauthorized)
	require.NoError(t, c.Close())

	first, second := APIKey("first-key").Fingerprint(), APIKey("second-key").Fingerprint()
	type brief struct {
		Type                  EventType
		Reason                string
		Generation            uint64
		Fingerprint, Previous string
	}
	var got []brief
	for _, e := range seen.all() {
		got = append(got, brief{e.Type, e.Reason, e.Generation, e.Fingerprint, e.Previous})
		assert.WithinDuration(t, time.Now(), e.Time, time.Minute)
	}
	assert.Equal(t, []brief{
		{EventRenewed, "first", 1, first, ""},
		{EventRejected, "rejected", 0, "", first},
		{EventRenewed, "rejected", 2, second, first},
		{EventRejected, "rejected", 0, "", second},
		{EventConfirmed, "rejected", 2, second, second},
	}, got)
}

func TestAFailedRenewalIsAnEvent(t *testing.T) {
	t.Parallel()
	errAway := errors.New("away")
	seen := &eventLog{}
	src := CredentialSourceFunc(func(context.Context) (Credential, error) { return Credential{}, errAway })
	c := clientOver(t, answering(http.StatusOK, "{}"), src, WithObserver(seen.observe), WithRetryPolicy(RetryPolicy{RenewalWait: -1}))
	_, err := c.Credential(t.Context())
	require.ErrorIs(t, err, errAway)
	require.NoError(t, c.Close())
	events := seen.all()
	require.Len(t, events, 1)
	assert.Equal(t, EventRenewalFailed, events[0].Type)
	require.ErrorIs(t, events[0].Err, errAway)
	assert.True(t, events[0].RetryAt.After(events[0].Time))
}

// A test's require in an observer ends the goroutine that it runs on.
func TestPanickingObserverLosesNoEvent(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(){
		"panic":  func() { panic("a bug of the observer") },
		"goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, seen := newMint("first-key"), &eventLog{}
			p := newPlatform("first-key")
			c := clientOver(t, p, src, WithObserver(func(e Event) {
				seen.observe(e)
				fail()
			}))
			for _, key := range []string{"first-key", "second-key", "third-key"} {
				src.replace(APIKey(key))
				p.accept(key)
				_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				require.NoError(t, err)
			}
			require.NoError(t, c.Close())
			assert.Len(t, seen.all(), 5)
		})
	}
}

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// loggerThat calls fn for every record.
func loggerThat(fn func()) Option {
	return WithLogger(slog.New(slog.NewTextHandler(writeFunc(func(p []byte) (int, error) {
		fn()
		return len(p), nil
	}), nil)))
}

func TestSlowObserverDoesNotDelayRequests(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]func(func()) Option{
		"observer": func(wait func()) Option { return WithObserver(func(Event) { wait() }) },
		"logger":   loggerThat,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				src := newMint("first-key")
				p := newPlatform("first-key")
				c, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithTransport(p), WithCredentialSource(src),
					slow(func() { <-release }))
				require.NoError(t, err)
				began := time.Now()
				for _, key := range []string{"first-key", "second-key"} {
					src.replace(APIKey(key))
					p.accept(key)
					_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
					require.NoError(t, err)
				}
				assert.Less(t, time.Since(began), time.Second, "only the questions about the first key take time")
				close(release)
				require.NoError(t, c.Close())
			})
		})
	}
}

// Observers and loggers run outside the engine's lock.
func TestObserverAndLoggerMayCallClient(t *testing.T) {
	t.Parallel()
	var c *Client
	ready := make(chan struct{})
	states := make(chan State, 2)
	ask := func() {
		<-ready
		states <- c.Status().State
	}
	var err error
	c, err = New(WithoutEnvironment(), WithTransport(answering(http.StatusOK, "{}")), WithCredentialSource(newMint("k")),
		WithObserver(func(Event) { ask() }), loggerThat(ask))
	require.NoError(t, err)
	close(ready)
	_, err = c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, StateReady, <-states)
	assert.Equal(t, StateReady, <-states)
	require.NoError(t, c.Close())
}

func TestEventsAreLoggedWithoutSecrets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		src := newMint(testKey)
		p := newPlatform(testKey)
		c := clientOver(t, p, src, WithLogger(slog.New(slog.NewTextHandler(&out, nil))))
		_, err := c.Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, nil)
		require.NoError(t, err)
		src.mu.Lock()
		src.err = errors.New("GET https://vault.example/v1?query-value: got sk_sandbox_Zq7Wm3Xp9Rt5")
		src.mu.Unlock()
		p.accept("other")
		_, err = c.Do(t.Context(), http.MethodGet, "/x?q=query-value", nil, nil)
		require.Error(t, err)
		require.NoError(t, c.Close())
		text := out.String()
		for _, want := range []string{
			`level=INFO msg="agrenting: credential renewed" event.type=renewed event.reason=first event.generation=1`,
			"event.credential=" + APIKey(testKey).Fingerprint(),
			`level=WARN msg="agrenting: credential rejected" event.type=rejected`,
			`level=WARN msg="agrenting: renewal failed" event.type="renewal failed"`,
			"event.retry_at=",
		} {
			assert.Contains(t, text, want)
		}
		assertClean(t, text, testKey, "sk_sandbox_Zq7Wm3Xp9Rt5")
	})
}

func TestLoggedEventHasKnownFields(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	e := Event{
		Type: EventRenewed, Reason: "early", Generation: 2, Fingerprint: "sha256:b", Previous: "sha256:a",
		Expires: at, RetryAt: at, Err: errors.New("sk_sandbox_Zq7Wm3Xp9Rt5"),
	}
	assert.Equal(t, "[type=renewed reason=early generation=2 credential=sha256:b previous=sha256:a "+
		"expires=2026-01-02 03:04:05 +0000 UTC error=[redacted] retry_at=2026-01-02 03:04:05 +0000 UTC]", e.LogValue().String())
	assert.Equal(t, "[type=rejected]", Event{Type: EventRejected}.LogValue().String())
}

func TestARenewalAheadOfTheExpirySaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := &eventLog{}
		n := 0
		src := CredentialSourceFunc(func(context.Context) (Credential, error) {
			n++
			return SessionToken("st_"+strings.Repeat("x", n), time.Now().Add(time.Hour)), nil
		})
		c, err := New(WithoutEnvironment(), WithTransport(answering(http.StatusOK, "{}")), WithCredentialSource(src), WithObserver(seen.observe))
		require.NoError(t, err)
		_, err = c.Credential(t.Context())
		require.NoError(t, err)
		letPass(time.Hour)
		require.NoError(t, c.Close())
		events := seen.all()
		require.Len(t, events, 2)
		assert.Equal(t, "early", events[1].Reason)
		assert.True(t, events[1].Time.Before(events[0].Expires), "no request ever waits")
	})
}
