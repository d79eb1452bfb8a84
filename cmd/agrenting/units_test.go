package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/cmd/agrenting/internal/proxy"
)

func TestProxyErrorResponses(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		err    error
		status int
		code   string
		after  time.Duration
	}{
		"lockout": {
			&agrenting.RenewalError{Err: &agrenting.LockoutError{RetryAt: time.Now().Add(time.Hour)}},
			http.StatusServiceUnavailable, "PROXY_LOCKED_OUT", time.Hour,
		},
		"renewal": {
			&agrenting.RenewalError{RetryAt: time.Now().Add(time.Minute), Err: errors.New("no vault")},
			http.StatusServiceUnavailable, "PROXY_NO_CREDENTIAL", time.Minute,
		},
		"none":    {agrenting.ErrNoCredential, http.StatusServiceUnavailable, "PROXY_NO_CREDENTIAL", 0},
		"agent":   {agrenting.ErrInvalidAgentID, http.StatusUnprocessableEntity, "PROXY_AGENT_ID", 0},
		"timeout": {fmt.Errorf("slow: %w", context.DeadlineExceeded), http.StatusGatewayTimeout, "PROXY_TIMEOUT", 0},
		"other":   {errors.New("https://example.com/?api_key=inner"), http.StatusBadGateway, "PROXY_UPSTREAM", 0},
	} {
		status, code, text, after := explain(c.err)
		assert.Equal(t, c.status, status, name)
		assert.Equal(t, c.code, code, name)
		assert.NotContains(t, text, "inner", name)
		assert.InDelta(t, c.after.Seconds(), after.Seconds(), 2, name)
	}
}

func TestFirstLineLeavesTheRest(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("x", maxInput)
	for input, want := range map[string]struct {
		line, rest string
		err        error
	}{
		"key\nrest\n": {"key\n", "rest\n", nil},
		"\nrest":      {"\n", "rest", nil},
		"key":         {"key", "", io.EOF},
		"":            {"", "", io.EOF},
		long + "y\n":  {long, "y\n", nil},
	} {
		r := strings.NewReader(input)
		line, err := firstLine(r)
		assert.Equal(t, want.err, err, input)
		assert.Equal(t, want.line, string(line))
		rest, err := io.ReadAll(r)
		require.NoError(t, err)
		assert.Equal(t, want.rest, string(rest))
	}
}

func TestProgressFits(t *testing.T) {
	t.Parallel()

	assert.Equal(t, "text … 3 s", fitting("text", " … 3 s", 11))
	assert.Equal(t, "tex … 3 s", fitting("text", " … 3 s", 10))
	assert.Equal(t, "a … 3 s", fitting("a text", " … 3 s", 9))
	assert.Equal(t, "东 … 3 s", fitting("东京都", " … 3 s", 10))
	assert.Equal(t, " … 3 s", fitting("text", " … 3 s", 0))
}

func TestRotationReportsUnusualOutcome(t *testing.T) {
	t.Parallel()

	assert.Empty(t, howItWent(&agrenting.Rotation{}, false))
	assert.Equal(t, "recovered: this run finished the rotation of an earlier run", howItWent(&agrenting.Rotation{Recovered: true}, false))
	assert.Equal(t, "adopted: another process created this key; interrupted, but finished",
		howItWent(&agrenting.Rotation{Adopted: true}, true))
}

func TestFieldsNest(t *testing.T) {
	t.Parallel()

	root := map[string]any{}
	for _, f := range []struct {
		path  string
		value any
	}{{"a", "1"}, {"b[c]", "2"}, {"b[d][]", "3"}, {"b[d][]", "4"}, {"a", "5"}, {"e[]", "6"}} {
		require.NoError(t, setField(root, f.path, f.value))
	}
	b, err := json.Marshal(root)
	require.NoError(t, err)
	assert.JSONEq(t, `{"a":"5","b":{"c":"2","d":["3","4"]},"e":["6"]}`, string(b))
	for _, bad := range []string{"", "[a]", "a[", "a]", "a[b", "a[][b]", "a[b]c", "a[b]", "b[c][]", "b[c][x]"} {
		assert.Error(t, setField(root, bad, "x"), bad)
	}
}

func TestForeignTextIsHarmlessOnATerminal(t *testing.T) {
	t.Parallel()

	for _, bad := range []string{"\x1b[31m", "a\rb", "\u202e", "\x00", "\u009b31m", "\xff", "a\u200bb", "\ufeff", "\u2066", "\u00ad", "\u2028", "\U000e0041"} {
		for _, r := range visible(bad) {
			assert.GreaterOrEqual(t, r, ' ')
			assert.True(t, unicode.IsPrint(r), "%q", r)
		}
	}
	assert.Equal(t, "Zoë 东京", visible("Zoë 东京"))
}

func TestSecretsLeaveTheEnvironmentOfCommands(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]bool{
		"AGRENTING_API_KEY": true, "AGRENTING_KEY_FILE": true, "AGRENTING_SANDBOX_API_KEY": true, "AGRENTING_SESSION_TOKEN": true,
		"AGRENTING_REPO_ACCESS_TOKEN": true, "AGRENTING_CREDENTIAL_TYPE": true, "agrenting_api_key": true, "AGRENTING_SEALING_KEY": true,
		"AGRENTING_URL": false, "AGRENTING_ENV": false, "AGRENTING_AGENT_ID": false, "OTHER_KEY": false,
	} {
		assert.Equal(t, want, secretVariable(name), name)
	}
}

// TestDoctorChecksTLS meets a certificate that is not trusted.
func TestDoctorChecksTLS(t *testing.T) {
	t.Parallel()

	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	srv.StartTLS()
	t.Cleanup(srv.Close)
	var out, errs strings.Builder
	code := run(t.Context(), []string{"doctor", "--url", srv.URL, "--json"}, streams{
		in: strings.NewReader(""), out: &out, err: &errs,
		lookup: func(string) (string, bool) { return "", false }, environ: func() []string { return nil },
	})
	assert.Equal(t, codeNetwork, code)
	assert.Contains(t, out.String(), "the certificate is not trusted")
	assert.Empty(t, errs.String())
}

func TestEveryCommandExplainsItself(t *testing.T) {
	t.Parallel()

	var g grammar
	for _, leaf := range newProgram(&g).Leaves() {
		assert.Implements(t, (*runner)(nil), leaf.Target, leaf.Path())
		assert.NotEmpty(t, leaf.Help, leaf.Path())
		for _, f := range leaf.Flags {
			assert.NotEmpty(t, f.Help, "%s --%s", leaf.Path(), f.Name)
			for _, word := range []string{"secret", "password", "api-key", "credential="} {
				assert.NotContains(t, f.Name, word, "no flag takes a secret")
			}
		}
	}
}

func TestProxyBaseHasTheLimitsOfTheDefaultBase(t *testing.T) {
	t.Parallel()
	base, std := proxyBase(), agrenting.NewBaseTransport()
	assert.Equal(t, std.HTTP2, base.HTTP2)
	assert.Equal(t, std.TLSHandshakeTimeout, base.TLSHandshakeTimeout)
	assert.Equal(t, std.ExpectContinueTimeout, base.ExpectContinueTimeout)
	assert.Equal(t, 256, base.MaxIdleConnsPerHost)
	assert.Equal(t, 512, base.MaxIdleConns)
}

func TestListenTakesOnlyLoopback(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"localhost:1": "127.0.0.1:1", "LocalHost:1": "127.0.0.1:1", "127.0.0.2:1": "127.0.0.2:1", "[::1]:1": "[::1]:1"} {
		got, err := loopback(addr, "")
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for _, addr := range []string{"localho\u017ft:1", "localhost.:1", "0.0.0.0:1", ":1", "example.com:1", "localhost"} {
		_, err := loopback(addr, "")
		require.Error(t, err, addr)
	}
}

// Doctor reports the proxy that requests use.
func TestDoctorNamesTheProxyOfRequests(t *testing.T) {
	t.Parallel()
	if os.Getenv("AGRENTING_TEST_PROXY") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "AGRENTING_TEST_PROXY=1", "HTTP_PROXY=http://proxy.test:3128", "HTTPS_PROXY=http://proxy.test:3128", "NO_PROXY=", "no_proxy=")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	for target, want := range map[string]string{
		"https://agrenting.com": "HTTPS_PROXY", "http://agrenting.com": "HTTP_PROXY", "http://localhost:1": "", "https://api.localhost": "", "http://127.0.0.1:1": "",
	} {
		e := &examination{report: jsonDoctor{URL: target}}
		assert.Equal(t, want, e.viaProxy(), target)
	}
}

func TestVerdictOf(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want proxy.Verdict
	}{
		{nil, proxy.Alive},
		{&agrenting.APIError{StatusCode: http.StatusUnauthorized}, proxy.Dead},
		{&agrenting.APIError{StatusCode: http.StatusServiceUnavailable}, proxy.Unknown},
		{&agrenting.APIError{StatusCode: http.StatusNotFound}, proxy.Unknown},
		{&agrenting.RenewalError{Err: context.DeadlineExceeded}, proxy.Unknown},
		{context.DeadlineExceeded, proxy.Unknown},
	} {
		assert.Equal(t, tc.want, verdictOf(tc.err), tc.err)
	}
}
