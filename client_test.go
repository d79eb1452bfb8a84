package agrenting_test

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

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestAClosedClientRefusesEverything(t *testing.T) {
	t.Parallel()
	sources := map[string]agrenting.Option{
		"static":    agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)),
		"anonymous": agrenting.WithAnonymous(),
		"renewing": agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			return agrenting.SessionToken("st_1", time.Now().Add(time.Hour)), nil
		})),
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := sdktest.Answering(http.StatusOK, "{}")
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(sdktest.APIURL), agrenting.WithTransport(base), source)
			require.NoError(t, err)
			as := c.As("agent-1")
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)

			require.NoError(t, c.Close())
			require.NoError(t, c.Close(), "closing twice does no harm")
			require.NoError(t, as.Close(), "nor does closing a client made by As")

			for who, client := range map[string]*agrenting.Client{"the client": c, "one made by As before": as, "one made by As after": c.As("agent-2")} {
				_, err = client.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				require.ErrorIs(t, err, agrenting.ErrClosed, who)
				_, err = client.Credential(t.Context())
				require.ErrorIs(t, err, agrenting.ErrClosed, who)
				resp, err := client.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "/x", nil))
				if err == nil {
					_ = resp.Body.Close()
				}
				require.ErrorIs(t, err, agrenting.ErrClosed, who)
				for _, err := range client.Agents.List(t.Context()) {
					require.ErrorIs(t, err, agrenting.ErrClosed, who)
				}
				_, err = client.Sessions.Authenticate(t.Context())
				require.ErrorIs(t, err, agrenting.ErrClosed, who)
				assert.Equal(t, agrenting.StateClosed, client.Status().State, who)
			}
			assert.Len(t, base.Requests(), 1, "nothing is sent after Close")
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
		source := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			asked.Add(1)
			token, expires := srv.NewSession(key.Secret)
			return agrenting.SessionToken(token, expires), nil
		})
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL), agrenting.WithTransport(srv.Transport()),
			agrenting.WithCredentialSource(source), agrenting.WithObserver(func(agrenting.Event) {}))
		require.NoError(t, err)
		_, err = c.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil)
		require.NoError(t, err)
		sdktest.LetPass(24 * time.Hour)
		require.Greater(t, asked.Load(), int64(1), "it renews without traffic while it is open")
		require.NoError(t, c.Close())
		before := asked.Load()
		sdktest.LetPass(100 * time.Hour)
		assert.Equal(t, before, asked.Load(), "nothing runs after Close")
	})
}

func TestCloseEndsWaitingRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := agrenting.CredentialSourceFunc(func(ctx context.Context) (agrenting.Credential, error) {
			<-ctx.Done()
			return agrenting.Credential{}, ctx.Err()
		})
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredentialSource(source), agrenting.WithTransport(sdktest.Answering(http.StatusOK, "{}")))
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() {
			_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			done <- err
		}()
		synctest.Wait()
		require.NoError(t, c.Close())
		require.ErrorIs(t, <-done, agrenting.ErrClosed)
	})
}

func TestCloseNamesHungSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		source := agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
			<-release
			return agrenting.Credential{}, errors.New("late")
		})
		c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredentialSource(source), agrenting.WithTransport(sdktest.Answering(http.StatusOK, "{}")))
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
	sdktest.Recorder
	closed atomic.Int64
}

func (i *idleCounter) CloseIdleConnections() { i.closed.Add(1) }

func TestCloseLeavesTheCallersTransportAlone(t *testing.T) {
	t.Parallel()
	base := &idleCounter{}
	c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)), agrenting.WithTransport(base))
	require.NoError(t, err)
	require.NoError(t, c.Close())
	assert.Zero(t, base.closed.Load())
	c.HTTPClient().CloseIdleConnections()
	assert.EqualValues(t, 1, base.closed.Load(), "but it is closed on demand")
}

func TestADefaultTransportOfItsOwn(t *testing.T) {
	t.Parallel()
	one, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)))
	require.NoError(t, err)
	other, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey)))
	require.NoError(t, err)
	assert.NotSame(t, agrenting.BaseOf(one), agrenting.BaseOf(other))
	require.NoError(t, one.Close())
	require.NoError(t, other.Close())
}

func TestAsSharesEverythingButTheAgent(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	asked := atomic.Int64{}
	c := sdktest.ClientOver(t, base, agrenting.CredentialSourceFunc(func(context.Context) (agrenting.Credential, error) {
		asked.Add(1)
		return agrenting.UserToken("ap_" + sdktest.TestKey), nil
	}), agrenting.WithAgentID("default"))
	for _, client := range []*agrenting.Client{c, c.As("one"), c.As("one").As("two")} {
		_, err := client.Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
	}
	var agents []string
	for _, s := range base.Requests() {
		agents = append(agents, s.Header.Get("X-Agent-ID"))
	}
	assert.Equal(t, []string{"default", "one", "two"}, agents)
	assert.EqualValues(t, 1, asked.Load(), "one credential for all")
	assert.Equal(t, "one", c.As("one").Status().AgentID)
	assert.Equal(t, "default", c.Status().AgentID, "the original is unchanged")
}

func TestAsAWrongAgentFailsItsCalls(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base)
	for _, id := range []string{"", "a b", "a\r\nX-Evil: 1", "a,b", "é", strings.Repeat("x", 513)} {
		_, err := c.As(id).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.ErrorIs(t, err, agrenting.ErrInvalidAgentID)
	}
	assert.Empty(t, base.Requests())
}

func TestTheHTTPClientIsACopy(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}"))
	h := c.HTTPClient()
	h.Transport, h.Timeout, h.CheckRedirect = nil, time.Second, nil
	assert.Same(t, c.Transport(), c.HTTPClient().Transport)
	assert.Zero(t, c.HTTPClient().Timeout, "streams may live long")
	assert.NotNil(t, c.HTTPClient().CheckRedirect)
}

func TestTheHTTPClientCarriesTheCredential(t *testing.T) {
	t.Parallel()
	base := sdktest.Answering(http.StatusOK, "{}")
	c := sdktest.Keyed(t, base, agrenting.WithAgentID("agent-1"))
	resp, err := c.HTTPClient().Do(sdktest.Request(t, http.MethodGet, "/mcp/sse", nil))
	require.NoError(t, err)
	assert.Equal(t, "{}", readAll(t, resp))
	got := base.Only(t)
	assert.Equal(t, sdktest.TestKey, sdktest.SecretOf(got.Header))
	assert.Equal(t, "agent-1", got.Header.Get("X-Agent-ID"))
	assert.Empty(t, resp.Request.Header, "the copy with the credential is not handed out")
}

func TestCredentialIsTheOneInUse(t *testing.T) {
	t.Parallel()
	src := sdktest.NewSource("first-key")
	p := sdktest.NewPlatform("second-key")
	c := sdktest.ClientOver(t, p, src)
	got, err := c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "first-key", got.Reveal())
	src.Replace(agrenting.APIKey("second-key"))
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	got, err = c.Credential(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "second-key", got.Reveal(), "after the 401 it is the renewed one")
}

func TestCredentialWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	src := sdktest.NewSource("k")
	release := src.Hold()
	defer release()
	c := sdktest.ClientOver(t, sdktest.Answering(http.StatusOK, "{}"), src)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Credential(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

func TestAClientPrintsAsASummary(t *testing.T) {
	t.Parallel()
	c := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}"), agrenting.WithAgentID("agent-1"))
	fingerprint := agrenting.APIKey(sdktest.TestKey).Fingerprint()
	assert.Equal(t, "agrenting.Client("+sdktest.APIURL+", api key from WithCredentialSource, "+fingerprint+", agent agent-1)", c.String())
	assert.Equal(t, c.String(), c.GoString())
	assert.Equal(t, c.String(), c.LogValue().String())
	text, err := c.MarshalText()
	require.NoError(t, err)
	assert.Equal(t, c.String(), string(text))
	assert.Equal(t, "agrenting.Client()", (*agrenting.Client)(nil).String())
	assert.Equal(t, "agrenting.Client()", new(agrenting.Client).String())
}

func TestBaseURLReturnsWhereCallsGo(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                 agrenting.DefaultBaseURL,
		"https://Agrenting.COM:443/":       "https://agrenting.com",
		"https://agrenting.com:8443/v2/":   "https://agrenting.com:8443/v2",
		"http://127.0.0.1:8080/x%2Fy":      "http://127.0.0.1:8080/x%2Fy",
		"https://[2001:db8::1]/tenant/one": "https://[2001:db8::1]/tenant/one",
	} {
		c, err := agrenting.New(agrenting.WithAnonymous(), sdktest.LookupIn(map[string]string{"AGRENTING_URL": given}))
		require.NoError(t, err, given)
		assert.Equal(t, want, c.BaseURL(), given)
		assert.Equal(t, want, c.As("agent-1").BaseURL(), given)
		require.NoError(t, c.Close())
	}
}
