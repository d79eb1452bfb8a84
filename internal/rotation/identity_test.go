package rotation_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// agentClient is a client as the program of one agent makes it.
func agentClient(t *testing.T, w *sdktest.RotationWorld, store agrenting.Store, key, agent string, opts ...agrenting.Option) *agrenting.Client {
	t.Helper()
	if agent != "" {
		opts = append(opts, agrenting.WithAgentID(agent))
	}
	c, err := agrenting.New(append(opts, agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL),
		agrenting.WithTransport(w.Server.Transport()), agrenting.WithStore(store), agrenting.WithCredential(agrenting.APIKey(key)))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestTwoAgentsWithOneStore(t *testing.T) {
	t.Parallel()
	for _, shape := range []agrentingtest.SessionShape{agrentingtest.ShapeLive, agrentingtest.ShapeDocs} {
		for _, session := range []bool{false, true} {
			for _, firstNamed := range []bool{false, true} {
				for _, secondNamed := range []bool{false, true} {
					for _, rotated := range []bool{false, true} {
						name := strings.Join([]string{
							map[bool]string{false: "responses without the agent", true: "responses with the agent"}[shape == agrentingtest.ShapeDocs],
							map[bool]string{false: "keys", true: "sessions"}[session],
							map[bool]string{false: "first unnamed", true: "first named"}[firstNamed],
							map[bool]string{false: "second unnamed", true: "second named"}[secondNamed],
							map[bool]string{false: "as filled", true: "rotated"}[rotated],
						}, ", ")
						t.Run(name, func(t *testing.T) {
							t.Parallel()
							synctest.Test(t, func(t *testing.T) {
								twoAgents(t, shape, session, firstNamed, secondNamed, rotated)
							})
						})
					}
				}
			}
		}
	}
}

func twoAgents(t *testing.T, shape agrentingtest.SessionShape, session, firstNamed, secondNamed, rotated bool) {
	t.Helper()
	w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionShape(shape))
	second := w.Server.NewAgent(nil, agrentingtest.AgentConfig{Name: "second"})
	store := agrenting.MemoryStore()
	var opts []agrenting.Option
	if session {
		opts = append(opts, agrenting.WithSession())
	}
	id := func(named bool, id string) string {
		if named {
			return id
		}
		return ""
	}
	a := agentClient(t, w, store, w.Key.Secret, id(firstNamed, w.Agent.ID), opts...)
	require.NoError(t, w.Call(a))
	if rotated {
		_, err := a.Rotate(t.Context())
		require.NoError(t, err)
	}
	w.Server.ResetLog()
	b := agentClient(t, w, store, w.Server.NewKey(second.ID).Secret, id(secondNamed, second.ID), opts...)
	err := w.Call(b)
	mismatch, ok := errors.AsType[*agrenting.RecordMismatchError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, "agent", mismatch.Field)
	require.ErrorContains(t, err, "Namespace")
	if firstNamed || shape == agrentingtest.ShapeDocs {
		assert.Equal(t, w.Agent.ID, mismatch.Stored)
	}
	if secondNamed || shape == agrentingtest.ShapeDocs {
		assert.Equal(t, second.ID, mismatch.Configured)
	}
	_, err = b.Rotate(t.Context())
	_, ok = errors.AsType[*agrenting.RecordMismatchError](err)
	assert.True(t, ok, "%v", err)
	sdktest.Advance(time.Hour)
	require.Error(t, w.Call(b))
	for _, r := range w.Server.Requests() {
		if r.Path == "/api/v1/tasks" {
			t.Errorf("the second client sent a request as %s", r.Principal)
		}
	}
	exchanges := w.Server.Count(sdktest.RouteAuthenticate)
	assert.LessOrEqual(t, exchanges, 4, "each key is exchanged once to learn whose it is")
	require.NoError(t, w.Call(a), "the first client is not disturbed")
	assert.Len(t, w.Server.LiveKeys(w.Agent.ID), 1)
	assert.Len(t, w.Server.LiveKeys(second.ID), 1)
}

func TestOtherKeyOfSameAgentIsAccepted(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		shape agrentingtest.SessionShape
		named bool // WithAgentID
	}{
		"the response names the agent": {shape: agrentingtest.ShapeDocs},
		"the agent is configured":      {shape: agrentingtest.ShapeLive, named: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionShape(tc.shape))
				store := agrenting.MemoryStore()
				agent := ""
				if tc.named {
					agent = w.Agent.ID
				}
				a := agentClient(t, w, store, w.Key.Secret, "")
				require.NoError(t, w.Call(a))
				other := w.Server.NewKey(w.Agent.ID)
				w.Server.ResetLog()
				for range 20 {
					b := agentClient(t, w, store, other.Secret, agent)
					require.NoError(t, w.Call(b))
					c, err := b.Credential(t.Context())
					require.NoError(t, err)
					assert.Equal(t, w.Key.Secret, c.Reveal(), "the store's key is used")
					require.NoError(t, b.Close())
				}
				assert.LessOrEqual(t, w.Server.Count(sdktest.RouteAuthenticate), 2, "what is found out is kept in the record")
			})
		})
	}
}

func TestFindingOutTheAgentFailsForAWhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionShape(agrentingtest.ShapeDocs))
		store := agrenting.MemoryStore()
		require.NoError(t, w.Call(agentClient(t, w, store, w.Key.Secret, "")))
		w.Server.Fault(sdktest.RouteAuthenticate, agrentingtest.Status(http.StatusServiceUnavailable, "UNAVAILABLE").Always())
		b := agentClient(t, w, store, w.Server.NewKey(w.Agent.ID).Secret, "")
		w.Server.ResetLog()
		time.AfterFunc(5*time.Second, w.Server.ClearFaults)
		require.NoError(t, w.Call(b), "the request waits out the outage")
		assert.LessOrEqual(t, w.Server.Count(sdktest.RouteAuthenticate), 6)
	})
}

// An operator's key replaces one that is dead, but not one of another agent.
func TestProvidedKeyOfOtherAgentIsNotAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithSessionShape(agrentingtest.ShapeDocs))
		store := agrenting.MemoryStore()
		set, initial := sdktest.ChangingKey(w.Key.Secret)
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(w.Server.URL), agrenting.WithTransport(w.Server.Transport()),
			agrenting.WithStore(store), initial)
		require.NoError(t, err)
		require.NoError(t, w.Call(c))
		rec, rev, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		rec.Agent = w.Agent.ID
		_, err = sdktest.SaveRecord(t.Context(), store, rec, rev)
		require.NoError(t, err)
		sdktest.Advance(time.Minute)
		require.NoError(t, w.Call(c))
		other := w.Server.NewAgent(nil, agrentingtest.AgentConfig{Name: "other"})
		set(w.Server.NewKey(other.ID).Secret)
		w.Server.RevokeKey(w.Key.ID)
		err = w.Call(c)
		mismatch, ok := errors.AsType[*agrenting.RecordMismatchError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, []string{w.Agent.ID, other.ID}, []string{mismatch.Stored, mismatch.Configured})
		set(w.Server.NewKey(w.Agent.ID).Secret)
		sdktest.Advance(time.Minute)
		require.NoError(t, w.Call(c))
		require.NoError(t, c.Close())
	})
}

// The store that a client uses is emptied, and the program of another agent fills it.
func TestRecordOfOtherLineageIsNotAdopted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := agrenting.MemoryStore()
		a := agentClient(t, w, store, w.Key.Secret, "")
		require.NoError(t, w.Call(a))
		second := w.Server.NewAgent(nil, agrentingtest.AgentConfig{Name: "second"})
		foreign := agrenting.APIKey(w.Server.NewKey(second.ID).Secret)
		_, rev, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		_, err = sdktest.SaveRecord(t.Context(), store, record.Key{
			Generation: 7, Lineage: record.LineageOf(sdktest.SecretCredential(foreign)),
			Current: record.StoredKey{Credential: sdktest.SecretCredential(foreign), Created: sdktest.WallNow()},
		}, rev)
		require.NoError(t, err)
		for range 10 {
			sdktest.Advance(time.Second)
			require.NoError(t, w.Call(a))
			c, err := a.Credential(t.Context())
			require.NoError(t, err)
			require.Equal(t, w.Key.Secret, c.Reveal())
		}
		_, ok := errors.AsType[*agrenting.RecordMismatchError](a.Status().StoreError)
		assert.True(t, ok, "%v", a.Status().StoreError)
		rec, _, err := sdktest.LoadRecord(t.Context(), store)
		require.NoError(t, err)
		assert.Equal(t, foreign.Reveal(), rec.Current.Credential.Reveal(), "the record of the other program is left intact")
	})
}

// A program starts with a key that the platform does not know yet, beside another key of
// the same agent in the store.
func TestKeyThatIsNotKnownYetIsAskedAboutAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t, agrentingtest.WithNodes(agrentingtest.Nodes{KeyLag: 2 * time.Second}))
		store := w.AgedStore(1, nil)
		admin := sdktest.ClientOf(t, w.Server, agrenting.WithCredential(agrenting.UserToken(w.Owner.Secret)))
		k, err := admin.Keys.Create(t.Context(), w.Agent.ID, "second")
		require.NoError(t, err)
		c := agentClient(t, w, store, k.Credential.Reveal(), "")
		err = w.Call(c)
		_, ok := errors.AsType[*agrenting.RecordMismatchError](err)
		require.True(t, ok, "%v", err)
		sdktest.Advance(5 * time.Second)
		require.NoError(t, w.Call(c))
		cred, err := c.Credential(t.Context())
		require.NoError(t, err)
		assert.Equal(t, w.Key.Secret, cred.Reveal(), "the store's key is used")
	})
}

// A program starts with a key that is dead, beside the key of an agent in the store.
func TestAgentOfDeadKeyIsAskedForSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := sdktest.NewRotationWorld(t)
		store := w.AgedStore(1, nil)
		dead := w.Server.NewKey(w.Agent.ID)
		w.Server.RevokeKey(dead.ID)
		c := agentClient(t, w, store, dead.Secret, "")
		for range 600 {
			_, ok := errors.AsType[*agrenting.RecordMismatchError](w.Call(c))
			require.True(t, ok)
			sdktest.Advance(time.Second)
		}
		assert.LessOrEqual(t, w.Server.Count(sdktest.RouteAuthenticate), 15)
	})
}
