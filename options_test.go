package agrenting

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
)

func TestAnOptionRefusesWhatCannotBeUsed(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		opt  Option
		is   error
		want string
	}{
		"nil":                  {nil, ErrInvalidOption, "an option is nil"},
		"no credential":        {WithCredential(Credential{}), ErrNoCredential, "WithCredential"},
		"empty credential":     {WithCredential(APIKey("")), ErrInvalidCredential, "WithCredential"},
		"broken credential":    {WithCredential(APIKey(testKey + "\n")), ErrInvalidCredential, "a line break"},
		"bearer credential":    {WithCredential(APIKey("Bearer " + testKey)), ErrInvalidCredential, "without a scheme"},
		"nil source":           {WithCredentialSource(nil), ErrInvalidOption, "WithCredentialSource"},
		"static zero source":   {WithCredentialSource(Static(Credential{})), ErrNoCredential, "WithCredentialSource"},
		"static broken source": {WithCredentialSource(Static(APIKey(testKey + " x"))), ErrInvalidCredential, "white space"},
		"empty agent":          {WithAgentID(""), ErrInvalidAgentID, "WithAgentID"},
		"agent with a break":   {WithAgentID("a\r\nX-Evil: 1"), ErrInvalidAgentID, "WithAgentID"},
		"empty base":           {WithBaseURL(""), ErrInvalidOption, "WithBaseURL"},
		"base without scheme":  {WithBaseURL("agrenting.com"), ErrInvalidOption, "WithBaseURL: "},
		"base without host":    {WithBaseURL("https:///x"), ErrInvalidOption, "a scheme and a host"},
		"base with a password": {WithBaseURL("https://u:" + testKey + "@agrenting.com"), ErrInvalidOption, "user information"},
		"base with a query":    {WithBaseURL("https://agrenting.com/?api_key=" + testKey), ErrInvalidOption, "no query string"},
		"base with a fragment": {WithBaseURL("https://agrenting.com/#" + testKey), ErrInvalidOption, "no fragment"},
		"base that is a key":   {WithBaseURL(testKey), ErrInvalidOption, "WithBaseURL"},
		"base that is broken":  {WithBaseURL("https://agrenting.com/%zz" + testKey), ErrInvalidOption, "not a URL"},
		"base by ftp":          {WithBaseURL("ftp://agrenting.com"), ErrInvalidOption, "the scheme of a URL is https"},
		"base in clear":        {WithBaseURL("http://agrenting.com"), ErrInsecureURL, "WithInsecureHTTP"},
		"allowed in clear":     {WithAllowedOrigins("http://files.example"), ErrInsecureURL, "WithAllowedOrigins"},
		"allowed without host": {WithAllowedOrigins("https://ok.example", "files.example"), ErrInvalidOption, "WithAllowedOrigins"},
		"allowed star":         {WithAllowedOrigins("*"), ErrInvalidOption, "WithAllowedOrigins"},
		"no environment":       {WithEnvironment(""), ErrInvalidOption, `"production" or "sandbox"`},
		"unknown environment":  {WithEnvironment("staging"), ErrInvalidOption, "WithEnvironment"},
		"nil transport":        {WithTransport(nil), ErrInvalidOption, "WithTransport"},
		"negative timeout":     {WithTimeout(-time.Second), ErrInvalidOption, "-1s is negative"},
		"negative attempts":    {WithRetryPolicy(RetryPolicy{MaxAttempts: -1}), ErrInvalidOption, "WithRetryPolicy"},
		"negative delay":       {WithRetryPolicy(RetryPolicy{BaseDelay: -1}), ErrInvalidOption, "negative"},
		"negative cap":         {WithRetryPolicy(RetryPolicy{MaxDelay: -1}), ErrInvalidOption, "negative"},
		"negative Retry-After": {WithRetryPolicy(RetryPolicy{MaxRetryAfter: -1}), ErrInvalidOption, "negative"},
		"another key header":   {WithAPIKeyHeader("X-Token"), ErrInvalidOption, "neither X-API-Key nor Api-Key"},
		"a key as the header":  {WithAPIKeyHeader("sk_sandbox_" + testKey), ErrInvalidOption, "neither"},
		"nil observer":         {WithObserver(nil), ErrInvalidOption, "WithObserver"},
		"empty product":        {WithUserAgent(""), ErrInvalidOption, "WithUserAgent"},
		"product with a break": {WithUserAgent("x\r\nX-Api-Key: " + testKey), ErrInvalidOption, "WithUserAgent"},
		"nil lookup":           {WithLookupEnv(nil), ErrInvalidOption, "WithLookupEnv"},
		"negative exchange":    {WithSession(SessionPolicy{Timeout: -1}), ErrInvalidOption, "the timeout is negative"},
		"more than half":       {WithSession(SessionPolicy{Window: 0.51}), ErrInvalidOption, "more than half"},
		"nil store":            {WithStore(nil), ErrInvalidOption, "WithStore"},
		"route elsewhere":      {WithRoutes(Routes{Logout: "https://evil.example/"}), ErrForeignOrigin, "WithRoutes"},
		"route with dots":      {WithRoutes(Routes{Authenticate: "/a/../b"}), ErrInvalidOption, "WithRoutes"},
		"relative route":       {WithRoutes(Routes{MyAgents: "mine"}), ErrInvalidOption, "WithRoutes"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := New(WithoutEnvironment(), WithCredential(APIKey("k")), tc.opt)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.want)
			assertClean(t, err.Error(), testKey)
			assert.Nil(t, c)
		})
	}
	_, err := NewTransport(nil, WithoutEnvironment())
	require.ErrorIs(t, err, ErrInvalidOption)
}

func TestTheLastCredentialOptionWins(t *testing.T) {
	t.Parallel()
	options := map[string]struct {
		opt  Option
		want string
	}{
		"credential": {WithCredential(APIKey("by-credential")), "by-credential"},
		"source":     {WithCredentialSource(newMint("by-source")), "by-source"},
		"anonymous":  {WithAnonymous(), ""},
	}
	for first, a := range options {
		for last, b := range options {
			base := answering(http.StatusOK, "{}")
			c, err := New(WithoutEnvironment(), WithTransport(base), a.opt, b.opt)
			require.NoError(t, err)
			_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.NoError(t, err)
			assert.Equal(t, b.want, secretOf(base.only(t).header), "%s, then %s", first, last)
			require.NoError(t, c.Close())
		}
	}
}

func TestTheSourceOfATransportIsItsFirstArgument(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Option{
		"credential": WithCredential(APIKey("other")), "source": WithCredentialSource(newMint("other")), "anonymous": WithAnonymous(),
	} {
		base := answering(http.StatusOK, "{}")
		tr := transportOver(t, base, Static(APIKey("own")), opt)
		resp, err := tr.RoundTrip(request(t, http.MethodGet, "/x", nil))
		require.NoError(t, err)
		readAll(t, resp)
		assert.Equal(t, "own", secretOf(base.only(t).header), name)
	}
}

func TestNewTransportLeavesTheCallersOptionsAlone(t *testing.T) {
	t.Parallel()
	opts := make([]Option, 1, 8)
	opts[0] = WithoutEnvironment()
	tr, err := NewTransport(Static(APIKey("k")), opts...)
	require.NoError(t, err)
	require.NoError(t, tr.Close())
	assert.Nil(t, opts[:2][1])
}

func TestTheAPIKeyHeaderHasTwoSpellings(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"X-API-Key", "x-api-key", "Api-Key", "api-key"} {
		base := answering(http.StatusOK, "{}")
		_, err := keyed(t, base, WithAPIKeyHeader(name)).Do(t.Context(), http.MethodGet, "/x", nil, nil)
		require.NoError(t, err)
		assert.Equal(t, map[string][]string{http.CanonicalHeaderKey(name): {testKey}}, base.only(t).credentials())
	}
}

func TestInsecureHTTPNeedsItsOption(t *testing.T) {
	t.Parallel()
	for url, open := range map[string]bool{
		"http://127.0.0.1:1": true, "http://[::1]:1": true, "http://localhost": true, "http://127.9.9.9": true,
		"http://10.0.0.1": false, "http://localhost.example": false, "http://agrenting.com": false,
	} {
		opts := []Option{WithoutEnvironment(), WithCredential(APIKey("k")), WithBaseURL(url)}
		c, err := New(opts...)
		if open {
			require.NoError(t, err, url)
			require.NoError(t, c.Close())
		} else {
			require.ErrorIs(t, err, ErrInsecureURL, url)
		}
		c, err = New(append(opts, WithInsecureHTTP())...)
		require.NoError(t, err, url)
		require.NoError(t, c.Close())
	}
}

func TestANilLoggerIsSilence(t *testing.T) {
	t.Parallel()
	_, err := keyed(t, answering(http.StatusOK, "{}", "Sunset", "Sat, 31 Oct 2026 23:59:59 GMT"), WithLogger(nil)).
		Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
}

func TestNewDoesNoIO(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key")
	asked := func(context.Context) (Credential, error) {
		t.Error("New asked the source")
		return Credential{}, context.Canceled
	}
	for name, opts := range map[string][]Option{
		"a key file that is not there yet": {lookupIn(map[string]string{"AGRENTING_KEY_FILE": file})},
		"a source":                         {WithoutEnvironment(), WithCredentialSource(CredentialSourceFunc(asked))},
		"a key":                            {WithoutEnvironment(), WithCredential(APIKey("k"))},
	} {
		base := answering(http.StatusOK, "{}")
		c, err := New(append(opts, WithTransport(base), WithLogger(slog.New(slog.DiscardHandler)), WithObserver(func(Event) {
			t.Error("New caused an event")
		}))...)
		require.NoError(t, err, name)
		assert.NotEqual(t, StateClosed, c.Status().State)
		assert.NotEmpty(t, c.String())
		require.NoError(t, c.Close())
		assert.Empty(t, base.requests(), name)
	}

	// The file is read by the first request, with what it holds by then.
	base := answering(http.StatusOK, "{}")
	c, err := New(lookupIn(map[string]string{"AGRENTING_KEY_FILE": file}), WithTransport(base))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	require.NoError(t, os.WriteFile(file, []byte("in-the-file\n"), 0o600))
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, "in-the-file", secretOf(base.only(t).header))
}
