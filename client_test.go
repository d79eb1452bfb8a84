package agrenting

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestAClosedClientRefusesEverything(t *testing.T) {
	t.Parallel()
	sources := map[string]Option{
		"static":    WithCredential(APIKey(testKey)),
		"anonymous": WithAnonymous(),
		"renewing": WithCredentialSource(CredentialSourceFunc(func(context.Context) (Credential, error) {
			return SessionToken("st_1", time.Now().Add(time.Hour)), nil
		})),
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusOK, "{}")
			c, err := New(WithoutEnvironment(), WithBaseURL(apiURL), WithTransport(base), source)
			require.NoError(t, err)
			as := c.As("agent-1")
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)

			require.NoError(t, c.Close())
			require.NoError(t, c.Close(), "closing twice does no harm")
			require.NoError(t, as.Close(), "nor does closing a client made by As")

			for who, client := range map[string]*Client{"the client": c, "one made by As before": as, "one made by As after": c.As("agent-2")} {
				_, err = client.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				require.ErrorIs(t, err, ErrClosed, who)
				_, err = client.Credential(t.Context())
				require.ErrorIs(t, err, ErrClosed, who)
				resp, err := client.HTTPClient().Do(request(t, http.MethodGet, "/x", nil))
				if err == nil {
					_ = resp.Body.Close()
				}
				require.ErrorIs(t, err, ErrClosed, who)
				for _, err := range client.Agents.List(t.Context()) {
					require.ErrorIs(t, err, ErrClosed, who)
				}
				_, err = client.Sessions.Authenticate(t.Context())
				require.ErrorIs(t, err, ErrClosed, who)
				assert.Equal(t, StateClosed, client.Status().State, who)
			}
			assert.Len(t, base.requests(), 1, "nothing is sent after Close")
		})
	}
}

// A bubble panics when goroutines are left that wait for each other for ever,
// and synctest.Test returns only when all have ended.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := agrentingtest.NewServer(agrentingtest.InMemory())
		defer srv.Close()
		key := srv.NewKey(srv.NewAgent(nil, agrentingtest.AgentConfig{}).ID)
		asked := atomic.Int64{}
		source := CredentialSourceFunc(func(context.Context) (Credential, error) {
			asked.Add(1)
			token, expires := srv.NewSession(key.Secret)
			return SessionToken(token, expires), nil
		})
		c, err := New(WithoutEnvironment(), WithBaseURL(srv.URL), WithTransport(srv.Transport()),
			WithCredentialSource(source), WithObserver(func(Event) {}))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
		require.NoError(t, err)
		letPass(24 * time.Hour)
		require.Greater(t, asked.Load(), int64(1), "it renews without traffic while it is open")
		require.NoError(t, c.Close())
		before := asked.Load()
		letPass(100 * time.Hour)
		assert.Equal(t, before, asked.Load(), "nothing runs after Close")
	})
}

func TestCloseEndsARequestThatWaitsForACredential(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := CredentialSourceFunc(func(ctx context.Context) (Credential, error) {
			<-ctx.Done()
			return Credential{}, ctx.Err()
		})
		c, err := New(WithoutEnvironment(), WithCredentialSource(source), WithTransport(answering(http.StatusOK, "{}")))
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-done, ErrClosed)
	})
}

func TestCloseNamesASourceThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		source := CredentialSourceFunc(func(context.Context) (Credential, error) {
			<-release
			return Credential{}, errors.New("late")
		})
		c, err := New(WithoutEnvironment(), WithCredentialSource(source), WithTransport(answering(http.StatusOK, "{}")))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Credential(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		began := time.Now()
		err = c.Close()
		require.ErrorContains(t, err, "ignored the end of its context")
		assert.Equal(t, 5*time.Second, time.Since(began))
		assert.Equal(t, err, c.Close(), "the second Close tells the same")
		close(release)
	})
}

// idleCounter is a base that counts CloseIdleConnections.
type idleCounter struct {
	recorder
	closed atomic.Int64
}

func (i *idleCounter) CloseIdleConnections() { i.closed.Add(1) }

func TestCloseLeavesTheCallersTransportAlone(t *testing.T) {
	t.Parallel()
	base := &idleCounter{}
	c, err := New(WithoutEnvironment(), WithCredential(APIKey(testKey)), WithTransport(base))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	assert.Zero(t, base.closed.Load())
	c.HTTPClient().CloseIdleConnections()
	assert.EqualValues(t, 1, base.closed.Load(), "but whoever asks for it gets it")
}

func TestADefaultTransportOfItsOwn(t *testing.T) {
	t.Parallel()
	one, err := New(WithoutEnvironment(), WithCredential(APIKey(testKey)))
	require.NoError(t, err)
	other, err := New(WithoutEnvironment(), WithCredential(APIKey(testKey)))
	require.NoError(t, err)
	assert.NotSame(t, one.transport.base, other.transport.base)
	require.NoError(t, one.Close())
	require.NoError(t, other.Close())
}

func TestAsSharesEverythingButTheAgent(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	asked := atomic.Int64{}
	c := clientOver(t, base, CredentialSourceFunc(func(context.Context) (Credential, error) {
		asked.Add(1)
		return UserToken("ap_" + testKey), nil
	}), WithAgentID("default"))
	for _, client := range []*Client{c, c.As("one"), c.As("one").As("two")} {
		_, err := client.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
	}
	var agents []string
	for _, s := range base.requests() {
		agents = append(agents, s.header.Get("X-Agent-ID"))
	}
	assert.Equal(t, []string{"default", "one", "two"}, agents)
	assert.EqualValues(t, 1, asked.Load(), "one credential for all")
	assert.Equal(t, "one", c.As("one").Status().AgentID)
	assert.Equal(t, "default", c.Status().AgentID, "the original is unchanged")
}

func TestAsAWrongAgentFailsItsCalls(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c := keyed(t, base)
	for _, id := range []string{"", "a b", "a\r\nX-Evil: 1", "a,b", "é", strings.Repeat("x", 513)} {
		_, err := c.As(id).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorIs(t, err, ErrInvalidAgentID)
	}
	assert.Empty(t, base.requests())
}

func TestTheHTTPClientIsACopy(t *testing.T) {
	t.Parallel()
	c := keyed(t, answering(http.StatusOK, "{}"))
	h := c.HTTPClient()
	h.Transport, h.Timeout, h.CheckRedirect = nil, time.Second, nil
	assert.Same(t, c.Transport(), c.HTTPClient().Transport)
	assert.Zero(t, c.HTTPClient().Timeout, "streams may live long")
	assert.NotNil(t, c.HTTPClient().CheckRedirect)
}

func TestTheHTTPClientCarriesTheCredential(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c := keyed(t, base, WithAgentID("agent-1"))
	resp, err := c.HTTPClient().Do(request(t, http.MethodGet, "/mcp/sse", nil))
	require.NoError(t, err)
	assert.Equal(t, "{}", readAll(t, resp))
	got := base.only(t)
	assert.Equal(t, testKey, secretOf(got.header))
	assert.Equal(t, "agent-1", got.header.Get("X-Agent-ID"))
	assert.Empty(t, resp.Request.Header, "the stamped copy is not handed out")
}

func TestCredentialIsTheOneInUse(t *testing.T) {
	t.Parallel()
	src := newMint("first-key")
	p := newPlatform("second-key")
	c := clientOver(t, p, src)
	got, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "first-key", got.Reveal())
	src.replace(APIKey("second-key"))
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	got, err = c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "second-key", got.Reveal(), "after the 401 it is the renewed one")
}

func TestCredentialWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	src := newMint("k")
	release := src.hold()
	defer release()
	c := clientOver(t, answering(http.StatusOK, "{}"), src)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Credential(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAClientPrintsAsASummary(t *testing.T) {
	t.Parallel()
	c := keyed(t, answering(http.StatusOK, "{}"), WithAgentID("agent-1"))
	fingerprint := APIKey(testKey).Fingerprint()
	assert.Equal(t, "agrenting.Client("+apiURL+", api key from WithCredentialSource, "+fingerprint+", agent agent-1)", c.String())
	assert.Equal(t, c.String(), c.GoString())
	assert.Equal(t, c.String(), c.LogValue().String())
	text, err := c.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, c.String(), string(text))
	assert.Equal(t, "agrenting.Client()", (*Client)(nil).String())
	assert.Equal(t, "agrenting.Client()", new(Client).String())
}

func TestTheBaseURLIsTheOneThatCallsGoTo(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                 DefaultBaseURL,
		"https://Agrenting.COM:443/":       "https://agrenting.com",
		"https://agrenting.com:8443/v2/":   "https://agrenting.com:8443/v2",
		"http://127.0.0.1:8080/x%2Fy":      "http://127.0.0.1:8080/x%2Fy",
		"https://[2001:db8::1]/tenant/one": "https://[2001:db8::1]/tenant/one",
	} {
		c, err := New(WithAnonymous(), lookupIn(map[string]string{"AGRENTING_URL": given}))
		require.NoError(t, err, given)
		assert.Equal(t, want, c.BaseURL(), given)
		assert.Equal(t, want, c.As("agent-1").BaseURL(), given)
		require.NoError(t, c.Close())
	}
}
