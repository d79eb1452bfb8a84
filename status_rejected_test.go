package agrenting_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// rejectedCase is a client whose credential dies.
type rejectedCase struct {
	opts func(t *testing.T, key agrenting.Credential) []agrenting.Option
	// fixed is set if the credential cannot be replaced: three 401s in a row count.
	fixed bool
}

var rejectedCases = map[string]rejectedCase{
	"fixed credential": {opts: func(_ *testing.T, key agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{agrenting.WithCredential(key)}
	}, fixed: true},
	"environment variable": {opts: func(_ *testing.T, key agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{sdktest.LookupIn(map[string]string{"AGRENTING_API_KEY": key.Reveal()})}
	}, fixed: true},
	"file": {opts: func(t *testing.T, key agrenting.Credential) []agrenting.Option {
		t.Helper()
		path := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(path, []byte(key.Reveal()), 0o600))
		return []agrenting.Option{agrenting.WithCredentialSource(agrenting.FileSource(path))}
	}},
	"source": {opts: func(_ *testing.T, key agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{agrenting.WithCredentialSource(sdktest.NewSource(key.Reveal()))}
	}},
	"store": {opts: func(_ *testing.T, key agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{agrenting.WithCredential(key), agrenting.WithStore(agrenting.MemoryStore())}
	}},
	"session": {opts: func(_ *testing.T, key agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{agrenting.WithCredential(key), agrenting.WithSession()}
	}},
	"session and store": {opts: func(_ *testing.T, key agrenting.Credential) []agrenting.Option {
		return []agrenting.Option{agrenting.WithCredential(key), agrenting.WithSession(), agrenting.WithStore(agrenting.MemoryStore())}
	}},
}

func TestStatus_keyRevoked_rejected(t *testing.T) {
	t.Parallel()
	for name, c := range rejectedCases {
		for when, worked := range map[string]bool{"before the first request": false, "after a success": true} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					client := sdktest.ClientOf(t, w.Server, c.opts(t, agrenting.APIKey(w.Key.Secret))...)
					if worked {
						require.NoError(t, w.Call(client))
						assert.Equal(t, agrenting.StateReady, client.Status().State)
						require.NoError(t, client.Status().Ready())
					}
					w.Server.RevokeKey(w.Key.ID)
					w.Server.RevokeSessions()
					require.ErrorIs(t, w.Call(client), agrenting.ErrUnauthorized)
					if c.fixed && !worked { // otherwise the request was resent twice
						assert.Equal(t, agrenting.StateReady, client.Status().State)
						require.Error(t, w.Call(client))
						require.Error(t, w.Call(client))
					}
					s := client.Status()
					assert.Equal(t, agrenting.StateRejected, s.State, "%v", s.LastError)
					require.ErrorIs(t, s.LastError, agrenting.ErrUnauthorized)
					require.ErrorIs(t, s.Ready(), agrenting.ErrUnauthorized)
					sdktest.AssertNoSecret(t, s.LastError.Error(), w.Key.Secret)
					sdktest.Advance(time.Minute)
					assert.Equal(t, agrenting.StateRejected, client.Status().State, "it lasts")
				})
			})
		}
	}
}

func TestStatus_verifySaysSo_rejected(t *testing.T) {
	t.Parallel()
	for name, c := range rejectedCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				client := sdktest.ClientOf(t, w.Server, c.opts(t, agrenting.APIKey(w.Key.Secret))...)
				w.Server.RevokeKey(w.Key.ID)
				require.ErrorIs(t, client.Verify(t.Context()), agrenting.ErrUnauthorized)
				assert.Equal(t, agrenting.StateRejected, client.Status().State)
			})
		})
	}
}

func TestStatus_strayUnauthorized_ready(t *testing.T) {
	t.Parallel()
	for name, c := range rejectedCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t)
				client := sdktest.ClientOf(t, w.Server, c.opts(t, agrenting.APIKey(w.Key.Secret))...)
				for range 30 {
					w.Server.Fault("GET /api/v1/tasks", agrentingtest.Status(401, "UNAUTHORIZED"))
					_ = w.Call(client) // a fixed credential gets the 401
					assert.Equal(t, agrenting.StateReady, client.Status().State)
					require.NoError(t, w.Call(client))
					sdktest.Advance(5 * time.Second)
					assert.Equal(t, agrenting.StateReady, client.Status().State)
				}
			})
		})
	}
}

func TestStatus_acceptedAgain_ready(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(*sdktest.RotationWorld, *agrenting.Client) error{
		"a request succeeds": func(w *sdktest.RotationWorld, c *agrenting.Client) error { return w.Call(c) },
		"Verify succeeds":    func(w *sdktest.RotationWorld, c *agrenting.Client) error { return c.Verify(w.T.Context()) },
	} {
		for source, rc := range rejectedCases {
			t.Run(source+", "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := sdktest.NewRotationWorld(t)
					client := sdktest.ClientOf(t, w.Server, rc.opts(t, agrenting.APIKey(w.Key.Secret))...)
					require.NoError(t, w.Call(client))
					w.Server.Fault("*", agrentingtest.Status(401, "UNAUTHORIZED").Always())
					require.ErrorIs(t, w.Call(client), agrenting.ErrUnauthorized)
					require.Equal(t, agrenting.StateRejected, client.Status().State)
					w.Server.ClearFaults()
					sdktest.Advance(time.Minute) // pauses of the source
					require.NoError(t, again(w, client))
					synctest.Wait() // a file or a store is read again
					assert.Equal(t, agrenting.StateReady, client.Status().State)
				})
			})
		}
	}
}

func TestStatus_anotherGeneration_ready(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		src := sdktest.NewSource(w.Key.Secret)
		client := sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(src))
		w.Server.RevokeKey(w.Key.ID)
		require.Error(t, w.Call(client))
		require.Equal(t, agrenting.StateRejected, client.Status().State)
		src.Replace(agrenting.APIKey(w.Server.NewKey(w.Agent.ID).Secret))
		sdktest.Advance(time.Minute)
		require.NoError(t, w.Call(client))
		assert.Equal(t, agrenting.StateReady, client.Status().State)
		assert.EqualValues(t, 2, client.Status().Generation)
	})
}

func TestStatus_sourceAskedAgain_staysRejected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		src := sdktest.NewSource(w.Key.Secret)
		client := sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(src))
		w.Server.RevokeKey(w.Key.ID)
		require.Error(t, w.Call(client))
		sdktest.Advance(time.Minute)
		release := src.Hold()
		done := make(chan error)
		go func() { done <- w.Call(client) }()
		sdktest.Advance(time.Second)
		s := client.Status()
		assert.True(t, s.Fetching)
		assert.Equal(t, agrenting.StateRejected, s.State)
		release()
		require.Error(t, <-done)
	})
}

func TestStatus_expiredSession_rejectedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		token, expires := w.Server.NewSession(w.Key.Secret)
		client := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.SessionToken(token, expires)))
		sdktest.Advance(time.Until(expires) + time.Second)
		require.ErrorIs(t, w.Call(client), agrenting.ErrUnauthorized)
		s := client.Status()
		assert.Equal(t, agrenting.StateRejected, s.State)
		require.ErrorContains(t, s.LastError, "which has expired at "+expires.UTC().Format(time.RFC3339))
	})
}

// A platform that does not serve the route that would tell returns 401 to everything else.
func TestStatus_noVerdict_rejectedAfterTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		w.Server.RevokeKey(w.Key.ID)
		client := sdktest.ClientOf(t, w.Server, agrenting.WithCredentialSource(sdktest.NewSource(w.Key.Secret)),
			agrenting.WithRoutes(agrenting.Routes{Verify: "/api/v9/nowhere"}))
		began := time.Now()
		for client.Status().State != agrenting.StateRejected {
			require.Error(t, w.Call(client))
			sdktest.Advance(time.Second)
			require.Less(t, time.Since(began), 20*time.Second)
		}
		assert.GreaterOrEqual(t, time.Since(began), 10*time.Second)
		assert.ErrorContains(t, client.Status().LastError, "its verify route gives no clear response")
	})
}

func TestFixedCredential_dies_isReportedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		w.Server.RevokeKey(w.Key.ID)
		var events []agrenting.Event
		client := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.APIKey(w.Key.Secret)),
			agrenting.WithObserver(func(e agrenting.Event) { events = append(events, e) }))
		for range 60 {
			require.Error(t, w.Call(client))
			sdktest.Advance(time.Second)
		}
		require.NoError(t, client.Close())
		require.Len(t, events, 1)
		assert.Equal(t, agrenting.EventRejected, events[0].Type)
		assert.Equal(t, agrenting.APIKey(w.Key.Secret).Fingerprint(), events[0].Previous)
		assert.Equal(t, 60, w.Server.Count("GET *"), "the platform is not asked")
	})
}
