package agrenting_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

func TestOptionsRefuseInvalidValues(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		opt  agrenting.Option
		is   error
		want string
	}{
		"nil":                  {nil, agrenting.ErrInvalidOption, "an option is nil"},
		"no credential":        {agrenting.WithCredential(agrenting.Credential{}), agrenting.ErrNoCredential, "WithCredential"},
		"empty credential":     {agrenting.WithCredential(agrenting.APIKey("")), agrenting.ErrInvalidCredential, "WithCredential"},
		"broken credential":    {agrenting.WithCredential(agrenting.APIKey(sdktest.TestKey + "\n")), agrenting.ErrInvalidCredential, "a line break"},
		"bearer credential":    {agrenting.WithCredential(agrenting.APIKey("Bearer " + sdktest.TestKey)), agrenting.ErrInvalidCredential, "without a scheme"},
		"nil source":           {agrenting.WithCredentialSource(nil), agrenting.ErrInvalidOption, "WithCredentialSource"},
		"static zero source":   {agrenting.WithCredentialSource(agrenting.Static(agrenting.Credential{})), agrenting.ErrNoCredential, "WithCredentialSource"},
		"static broken source": {agrenting.WithCredentialSource(agrenting.Static(agrenting.APIKey(sdktest.TestKey + " x"))), agrenting.ErrInvalidCredential, "white space"},
		"empty agent":          {agrenting.WithAgentID(""), agrenting.ErrInvalidAgentID, "WithAgentID"},
		"agent with a break":   {agrenting.WithAgentID("a\r\nX-Evil: 1"), agrenting.ErrInvalidAgentID, "WithAgentID"},
		"empty base":           {agrenting.WithBaseURL(""), agrenting.ErrInvalidOption, "WithBaseURL"},
		"base without scheme":  {agrenting.WithBaseURL("agrenting.com"), agrenting.ErrInvalidOption, "WithBaseURL: "},
		"base without host":    {agrenting.WithBaseURL("https:///x"), agrenting.ErrInvalidOption, "a scheme and a host"},
		"base with a password": {agrenting.WithBaseURL("https://u:" + sdktest.TestKey + "@agrenting.com"), agrenting.ErrInvalidOption, "user information"},
		"base with a query":    {agrenting.WithBaseURL("https://agrenting.com/?api_key=" + sdktest.TestKey), agrenting.ErrInvalidOption, "a query string or a fragment"},
		"base with a fragment": {agrenting.WithBaseURL("https://agrenting.com/#" + sdktest.TestKey), agrenting.ErrInvalidOption, "a query string or a fragment"},
		"base that is a key":   {agrenting.WithBaseURL(sdktest.TestKey), agrenting.ErrInvalidOption, "WithBaseURL"},
		"base that is broken":  {agrenting.WithBaseURL("https://agrenting.com/%zz" + sdktest.TestKey), agrenting.ErrInvalidOption, "not a valid URL"},
		"base by ftp":          {agrenting.WithBaseURL("ftp://agrenting.com"), agrenting.ErrInvalidOption, "the scheme of a URL must be https"},
		"base in clear":        {agrenting.WithBaseURL("http://agrenting.com"), agrenting.ErrInsecureURL, "WithInsecureHTTP"},
		"allowed in clear":     {agrenting.WithAllowedOrigins("http://files.example"), agrenting.ErrInsecureURL, "WithAllowedOrigins"},
		"allowed without host": {agrenting.WithAllowedOrigins("https://ok.example", "files.example"), agrenting.ErrInvalidOption, "WithAllowedOrigins"},
		"allowed star":         {agrenting.WithAllowedOrigins("*"), agrenting.ErrInvalidOption, "WithAllowedOrigins"},
		"no environment":       {agrenting.WithEnvironment(""), agrenting.ErrInvalidOption, `"production" or "sandbox"`},
		"unknown environment":  {agrenting.WithEnvironment("staging"), agrenting.ErrInvalidOption, "WithEnvironment"},
		"nil transport":        {agrenting.WithTransport(nil), agrenting.ErrInvalidOption, "WithTransport"},
		"negative timeout":     {agrenting.WithTimeout(-time.Second), agrenting.ErrInvalidOption, "-1s is negative"},
		"negative attempts":    {agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxAttempts: -1}), agrenting.ErrInvalidOption, "WithRetryPolicy"},
		"negative delay":       {agrenting.WithRetryPolicy(agrenting.RetryPolicy{BaseDelay: -1}), agrenting.ErrInvalidOption, "negative"},
		"negative cap":         {agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxDelay: -1}), agrenting.ErrInvalidOption, "negative"},
		"negative Retry-After": {agrenting.WithRetryPolicy(agrenting.RetryPolicy{MaxRetryAfter: -1}), agrenting.ErrInvalidOption, "negative"},
		"another key header":   {agrenting.WithAPIKeyHeader("X-Token"), agrenting.ErrInvalidOption, "neither X-API-Key nor Api-Key"},
		"a key as the header":  {agrenting.WithAPIKeyHeader("sk_sandbox_" + sdktest.TestKey), agrenting.ErrInvalidOption, "neither"},
		"nil observer":         {agrenting.WithObserver(nil), agrenting.ErrInvalidOption, "WithObserver"},
		"empty product":        {agrenting.WithUserAgent(""), agrenting.ErrInvalidOption, "WithUserAgent"},
		"product with a break": {agrenting.WithUserAgent("x\r\nX-Api-Key: " + sdktest.TestKey), agrenting.ErrInvalidOption, "WithUserAgent"},
		"nil lookup":           {agrenting.WithLookupEnv(nil), agrenting.ErrInvalidOption, "WithLookupEnv"},
		"negative exchange":    {agrenting.WithSession(agrenting.SessionPolicy{Timeout: -1}), agrenting.ErrInvalidOption, "the timeout is negative"},
		"more than half":       {agrenting.WithSession(agrenting.SessionPolicy{Window: 0.51}), agrenting.ErrInvalidOption, "more than half"},
		"nil store":            {agrenting.WithStore(nil), agrenting.ErrInvalidOption, "WithStore"},
		"route elsewhere":      {agrenting.WithRoutes(agrenting.Routes{Logout: "https://evil.example/"}), agrenting.ErrForeignOrigin, "WithRoutes"},
		"route with dots":      {agrenting.WithRoutes(agrenting.Routes{Authenticate: "/a/../b"}), agrenting.ErrInvalidOption, "WithRoutes"},
		"relative route":       {agrenting.WithRoutes(agrenting.Routes{MyAgents: "mine"}), agrenting.ErrInvalidOption, "WithRoutes"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("k")), tc.opt)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.want)
			sdktest.AssertClean(t, err.Error(), sdktest.TestKey)
			assert.Nil(t, c)
		})
	}
	_, err := agrenting.NewTransport(nil, agrenting.WithoutEnvironment())
	require.ErrorIs(t, err, agrenting.ErrInvalidOption)
}

func TestTheLastCredentialOptionWins(t *testing.T) {
	t.Parallel()
	options := map[string]struct {
		opt  agrenting.Option
		want string
	}{
		"credential": {agrenting.WithCredential(agrenting.APIKey("by-credential")), "by-credential"},
		"source":     {agrenting.WithCredentialSource(sdktest.NewSource("by-source")), "by-source"},
		"anonymous":  {agrenting.WithAnonymous(), ""},
	}
	for first, a := range options {
		for last, b := range options {
			base := sdktest.Answering(http.StatusOK, "{}")
			c, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithTransport(base), a.opt, b.opt)
			require.NoError(t, err)
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)
			assert.Equal(t, b.want, sdktest.SecretOf(base.Only(t).Header), "%s, then %s", first, last)
			require.NoError(t, c.Close())
		}
	}
}

func TestNewTransportUsesGivenSource(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]agrenting.Option{
		"credential": agrenting.WithCredential(agrenting.APIKey("other")), "source": agrenting.WithCredentialSource(sdktest.NewSource("other")), "anonymous": agrenting.WithAnonymous(),
	} {
		base := sdktest.Answering(http.StatusOK, "{}")
		tr := sdktest.TransportOver(t, base, agrenting.Static(agrenting.APIKey("own")), opt)
		resp, err := tr.RoundTrip(sdktest.Request(t, http.MethodGet, "/x", nil))
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, "own", sdktest.SecretOf(base.Only(t).Header), name)
	}
}

func TestNewTransportLeavesTheCallersOptionsAlone(t *testing.T) {
	t.Parallel()
	opts := make([]agrenting.Option, 1, 8)
	opts[0] = agrenting.WithoutEnvironment()
	tr, err := agrenting.NewTransport(agrenting.Static(agrenting.APIKey("k")), opts...)
	require.NoError(t, err)
	require.NoError(t, tr.Close())
	assert.Nil(t, opts[:2][1])
}

func TestTheAPIKeyHeaderHasTwoSpellings(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-API-Key", "x-api-key", "Api-Key", "api-key"} {
		base := sdktest.Answering(http.StatusOK, "{}")
		_, err := sdktest.Keyed(t, base, agrenting.WithAPIKeyHeader(name)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, map[string][]string{http.CanonicalHeaderKey(name): {sdktest.TestKey}}, base.Only(t).Credentials())
	}
}

func TestInsecureHTTPNeedsItsOption(t *testing.T) {
	t.Parallel()
	for url, open := range map[string]bool{
		"http://127.0.0.1:1": true, "http://[::1]:1": true, "http://localhost": true, "http://127.9.9.9": true,
		"http://10.0.0.1": false, "http://localhost.example": false, "http://agrenting.com": false,
	} {
		opts := []agrenting.Option{agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("k")), agrenting.WithBaseURL(url)}
		c, err := agrenting.New(opts...)
		if open {
			require.NoError(t, err, url)
			require.NoError(t, c.Close())
		} else {
			require.ErrorIs(t, err, agrenting.ErrInsecureURL, url)
		}
		c, err = agrenting.New(append(opts, agrenting.WithInsecureHTTP())...)
		require.NoError(t, err, url)
		require.NoError(t, c.Close())
	}
}

func TestANilLoggerIsSilence(t *testing.T) {
	t.Parallel()
	_, err := sdktest.Keyed(t, sdktest.Answering(http.StatusOK, "{}", "Sunset", "Sat, 31 Oct 2026 23:59:59 GMT"), agrenting.WithLogger(nil)).
		Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
}

func TestNewDoesNoIO(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	asked := func(context.Context) (agrenting.Credential, error) {
		t.Error("New asked the source")
		return agrenting.Credential{}, context.Canceled
	}
	for name, opts := range map[string][]agrenting.Option{
		"a key file that is not there yet": {sdktest.LookupIn(map[string]string{"AGRENTING_KEY_FILE": file})},
		"a source":                         {agrenting.WithoutEnvironment(), agrenting.WithCredentialSource(agrenting.CredentialSourceFunc(asked))},
		"a key":                            {agrenting.WithoutEnvironment(), agrenting.WithCredential(agrenting.APIKey("k"))},
	} {
		base := sdktest.Answering(http.StatusOK, "{}")
		c, err := agrenting.New(append(opts, agrenting.WithTransport(base), agrenting.WithLogger(slog.New(slog.DiscardHandler)), agrenting.WithObserver(func(agrenting.Event) {
			t.Error("New caused an event")
		}))...)
		require.NoError(t, err, name)
		assert.NotEqual(t, agrenting.StateClosed, c.Status().State)
		assert.NotEmpty(t, c.String())
		require.NoError(t, c.Close())
		assert.Empty(t, base.Requests(), name)
	}

	// The file is read by the first request, with what it holds by then.
	base := sdktest.Answering(http.StatusOK, "{}")
	c, err := agrenting.New(sdktest.LookupIn(map[string]string{"AGRENTING_KEY_FILE": file}), agrenting.WithTransport(base))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	require.NoError(t, os.WriteFile(file, []byte("in-the-file\n"), 0o600))
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, "in-the-file", sdktest.SecretOf(base.Only(t).Header))
}
