package agrenting

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOneCredentialOnTheWire goes through every combination of the variables
// that have to do with credentials, in either environment, with and without each
// explicit option: there is exactly one credential on the wire, in the header of
// its kind, and it is the first by precedence.
func TestOneCredentialOnTheWire(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"AGRENTING_KEY_FILE":        filepath.Join(t.TempDir(), "key"),
		"AGRENTING_SANDBOX_API_KEY": "sk_sandbox_AGRENTING_SANDBOX_API_KEY",
		"AGRENTING_API_KEY":         "sk_sandbox_AGRENTING_API_KEY",
		"AGRENTING_SESSION_TOKEN":   "st_sandbox_AGRENTING_SESSION_TOKEN",
	}
	require.NoError(t, os.WriteFile(values["AGRENTING_KEY_FILE"], []byte("sk_sandbox_AGRENTING_KEY_FILE\n"), 0o600))
	kinds := map[string]Kind{"": 0, "api_key": KindAPIKey, "user_token": KindUserToken, "session": KindSession}
	explicit := map[string]Option{
		"":           nil,
		"credential": WithCredential(APIKey("sk_sandbox_explicit")),
		"source":     WithCredentialSource(Static(UserToken("ap_sandbox_explicit"))),
		"renewing":   WithCredentialSource(newMint("sk_sandbox_explicit")),
		"anonymous":  WithAnonymous(),
	}
	cases := 0
	for bits := range 1 << len(credentialVars) {
		for _, sandbox := range []bool{false, true} {
			for typ, kind := range kinds {
				for option, opt := range explicit {
					cases++
					vars, first := variables(bits, sandbox, typ, values)
					label := fmt.Sprint(vars, " ", option)
					base := answering(http.StatusOK, "{}")
					opts := []Option{WithBaseURL(apiURL), WithTransport(base), lookupIn(vars)}
					if opt != nil {
						opts = append(opts, opt)
					}
					c, err := New(opts...)
					if option == "" && first == "" {
						require.ErrorIs(t, err, ErrNoCredential, label)
						continue
					}
					require.NoError(t, err, label)
					_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
					require.NoError(t, err, label)
					assert.Equal(t, sentHeader(option, first, kind), base.only(t).credentials(), label)
					require.NoError(t, c.Close())
				}
			}
		}
	}
	assert.Equal(t, 16*2*4*5, cases)
}

// variables are those of one combination, and which of them comes first.
func variables(bits int, sandbox bool, typ string, values map[string]string) (vars map[string]string, first string) {
	vars = map[string]string{"AGRENTING_CREDENTIAL_TYPE": typ}
	if sandbox {
		vars["AGRENTING_ENV"] = "sandbox"
	}
	for i, name := range credentialVars {
		if bits&(1<<i) == 0 {
			continue
		}
		vars[name] = values[name]
		if first == "" && (sandbox || name != "AGRENTING_SANDBOX_API_KEY") {
			first = name
		}
	}
	return vars, first
}

// sentHeader returns the credential header that has to be sent.
func sentHeader(option, variable string, kind Kind) map[string][]string {
	secret := "sk_sandbox_" + variable
	switch {
	case option == "anonymous":
		return map[string][]string{}
	case option == "source":
		return map[string][]string{"Authorization": {"Bearer ap_sandbox_explicit"}}
	case option != "":
		return map[string][]string{"X-Api-Key": {"sk_sandbox_explicit"}}
	case variable == "AGRENTING_SESSION_TOKEN":
		secret, kind = "st_sandbox_"+variable, KindSession
	}
	if kind == KindUserToken || kind == KindSession {
		return map[string][]string{"Authorization": {"Bearer " + secret}}
	}
	return map[string][]string{"X-Api-Key": {secret}}
}

func TestAnExplicitCredentialKeepsNewFromReadingOthers(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Option{
		"credential": WithCredential(APIKey("k")), "source": WithCredentialSource(newMint("k")), "anonymous": WithAnonymous(),
	} {
		env := &fakeEnv{vars: map[string]string{"AGRENTING_CREDENTIAL_TYPE": "nonsense", "AGRENTING_API_KEY": " broken "}}
		c, err := New(opt, WithLookupEnv(env.lookup))
		require.NoError(t, err, name)
		require.NoError(t, c.Close())
		assert.ElementsMatch(t, []string{"AGRENTING_LOG", "AGRENTING_ENV", "AGRENTING_AGENT_ID", "AGRENTING_URL"}, env.looked, name)
	}
}

func TestEveryVariableCanBeWrongAndSaysSo(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, value string
		is          error
		accepts     string
	}{
		{"AGRENTING_ENV", "staging", ErrInvalidOption, `"production" or "sandbox"`},
		{"AGRENTING_CREDENTIAL_TYPE", "token", ErrInvalidOption, `"api_key", "user_token", or "session"`},
		{"AGRENTING_AGENT_ID", "a b", ErrInvalidAgentID, "a UUID or a DID"},
		{"AGRENTING_AGENT_ID", "a\nb", ErrInvalidAgentID, "a UUID or a DID"},
		{"AGRENTING_AGENT_ID", " ", ErrInvalidOption, "the id of an agent"},
		{"AGRENTING_URL", "agrenting.com", ErrInvalidOption, "https://agrenting.com"},
		{"AGRENTING_URL", "https://agrenting.com?api_key=" + testKey, ErrInvalidOption, "https://agrenting.com"},
		{"AGRENTING_URL", "https://u:" + testKey + "@agrenting.com", ErrInvalidOption, "user information"},
		{"AGRENTING_URL", testKey, ErrInvalidOption, "https://agrenting.com"},
		{"AGRENTING_URL", "http://agrenting.com", ErrInsecureURL, "use https"},
		{"AGRENTING_URL", " ", ErrInvalidOption, "the platform's URL"},
		{"AGRENTING_API_KEY", testKey + "\n" + testKey, ErrInvalidCredential, "only the credential, on one line"},
		{"AGRENTING_SESSION_TOKEN", "Bearer " + testKey, ErrInvalidCredential, "without a scheme"},
		{"AGRENTING_KEY_FILE", " ", ErrInvalidCredential, "the path of a file"},
	}
	for _, tc := range cases {
		t.Run(tc.name+" "+tc.accepts, func(t *testing.T) {
			t.Parallel()
			vars := map[string]string{tc.name: tc.value}
			if !slices.Contains(credentialVars, tc.name) {
				vars["AGRENTING_API_KEY"] = "k"
			}
			c, err := New(lookupIn(vars))
			assert.Nil(t, c)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.name)
			require.ErrorContains(t, err, tc.accepts)
			assertClean(t, err.Error(), testKey)
		})
	}
}

func TestAnOptionStandsInForItsVariable(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c, err := New(lookupIn(map[string]string{
		"AGRENTING_URL": "nonsense", "AGRENTING_ENV": "nonsense", "AGRENTING_AGENT_ID": "a b", "AGRENTING_API_KEY": "sk_sandbox_x",
	}), WithBaseURL(apiURL), WithEnvironment(Sandbox), WithAgentID("agent-1"), WithTransport(base))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, apiURL+"/x", base.only(t).url)
	assert.Equal(t, "agent-1", base.only(t).header.Get("X-Agent-ID"))
	assert.Equal(t, Sandbox, c.Status().Environment)
}

func TestTheEnvironmentFillsTheGaps(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c, err := New(lookupIn(map[string]string{
		"AGRENTING_URL": apiURL + "/tenant/", "AGRENTING_ENV": "Sandbox", "AGRENTING_AGENT_ID": "agent-1",
		"AGRENTING_SANDBOX_API_KEY": "sk_sandbox_x", "AGRENTING_API_KEY": "production",
	}), WithTransport(base))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	got := base.only(t)
	assert.Equal(t, apiURL+"/tenant/x", got.url)
	assert.Equal(t, "agent-1", got.header.Get("X-Agent-ID"))
	assert.Equal(t, "sk_sandbox_x", secretOf(got.header))
}

func TestTheDefaultIsTheApexOverHTTPS(t *testing.T) {
	t.Parallel()
	base := answering(http.StatusOK, "{}")
	c, err := New(WithoutEnvironment(), WithCredential(APIKey("k")), WithTransport(base))
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, "https://agrenting.com/x", base.only(t).url)
}

func TestNewWithoutCredentialListsSources(t *testing.T) {
	t.Parallel()
	_, err := New(lookupIn(map[string]string{"AGRENTING_SANDBOX_API_KEY": "sk_sandbox_" + testKey}))
	var none *NoCredentialError
	require.ErrorAs(t, err, &none)
	require.ErrorIs(t, err, ErrNoCredential)
	var names []string
	for _, s := range none.Tried {
		names = append(names, s.Name)
	}
	assert.Equal(t, credentialVars, names)
	assertClean(t, err.Error(), testKey)
}

func TestEnvironmentCheckCoversEveryCredential(t *testing.T) {
	t.Parallel()
	const production, sandbox = "Zq7Wm3Xp9Rt5Kv2Ln8", "sk_sandbox_Zq7Wm3Xp9Rt5Kv2Ln8"
	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte(production), 0o600))
	cases := map[string]struct {
		env   Environment
		opts  []Option
		inNew bool
	}{
		"explicit in the sandbox":    {Sandbox, []Option{WithCredential(APIKey(production))}, true},
		"explicit in production":     {Production, []Option{WithCredential(APIKey(sandbox))}, true},
		"static source":              {Sandbox, []Option{WithCredentialSource(Static(APIKey(production)))}, true},
		"variable":                   {Sandbox, []Option{lookupIn(map[string]string{"AGRENTING_API_KEY": production})}, true},
		"variable in production":     {Production, []Option{lookupIn(map[string]string{"AGRENTING_API_KEY": sandbox})}, true},
		"user token in the sandbox":  {Sandbox, []Option{WithCredential(UserToken("ap_" + production))}, true},
		"session in the sandbox":     {Sandbox, []Option{WithCredential(SessionToken("st_"+production, time.Time{}))}, true},
		"key file":                   {Sandbox, []Option{lookupIn(map[string]string{"AGRENTING_KEY_FILE": file})}, false},
		"source":                     {Sandbox, []Option{WithCredentialSource(newMint(production))}, false},
		"source in production":       {Production, []Option{WithCredentialSource(newMint(sandbox))}, false},
		"opt-in is for tokens alone": {Sandbox, []Option{WithUnmarkedSandboxTokens(), WithCredential(APIKey(production))}, true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusOK, "{}")
			c, err := New(append([]Option{WithoutEnvironment(), WithEnvironment(tc.env), WithTransport(base)}, tc.opts...)...)
			if !tc.inNew {
				require.NoError(t, err)
				defer func() { require.NoError(t, c.Close()) }()
				_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
			}
			require.ErrorIs(t, err, ErrEnvironmentMismatch)
			assertClean(t, err.Error(), production)
			assert.Empty(t, base.requests(), "nothing left this process")
		})
	}
}

func TestEnvironmentCheckCoversRenewedCredentials(t *testing.T) {
	t.Parallel()
	src := newMint("sk_sandbox_first")
	p := newPlatform("sk_sandbox_first")
	c := clientOver(t, p, src, WithEnvironment(Sandbox))
	_, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.NoError(t, err)
	src.replace(APIKey("production-key"))
	p.accept("production-key") // it would work, and must not
	_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
	require.ErrorIs(t, err, ErrEnvironmentMismatch)
	assert.Zero(t, p.count("production-key"))
}

func TestUnmarkedTokensNeedOptIn(t *testing.T) {
	t.Parallel()
	for _, cred := range []Credential{UserToken("ap_x"), SessionToken("st_x", time.Time{})} {
		c, err := New(WithoutEnvironment(), WithEnvironment(Sandbox), WithCredential(cred), WithUnmarkedSandboxTokens())
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}

// onJS is a program in a browser.
func onJS() Option {
	return func(cfg *config) error {
		cfg.goos = "js"
		return nil
	}
}

func TestKeysStayOutOfBrowsers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cred    Credential
		refused bool
	}{
		"api key":    {APIKey(testKey), true},
		"user token": {UserToken("ap_" + testKey), true},
		"session":    {SessionToken("st_"+testKey, time.Time{}), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusOK, "{}")
			opts := []Option{WithoutEnvironment(), WithTransport(base), onJS()}
			c, err := New(append(opts, WithCredential(tc.cred))...)
			if tc.refused {
				require.ErrorIs(t, err, ErrInvalidCredential)
				require.ErrorContains(t, err, "WithClientSideKeys")
				assertClean(t, err.Error(), testKey)
			} else {
				require.NoError(t, err)
				require.NoError(t, c.Close())
			}
			renewing := CredentialSourceFunc(func(context.Context) (Credential, error) { return tc.cred, nil })
			for _, permit := range []bool{false, true} {
				more := []Option{WithCredentialSource(renewing)}
				if permit {
					more = append(more, WithClientSideKeys())
				}
				c, err := New(slices.Concat(opts, more)...)
				require.NoError(t, err)
				_, err = c.Do(t.Context(), http.MethodGet, "/x", nil, nil)
				if tc.refused && !permit {
					require.ErrorIs(t, err, ErrInvalidCredential)
					assert.Empty(t, base.requests())
				} else {
					require.NoError(t, err)
				}
				require.NoError(t, c.Close())
			}
		})
	}
	c, err := New(WithoutEnvironment(), onJS(), WithAnonymous())
	require.NoError(t, err, "who has no key cannot lose it")
	require.NoError(t, c.Close())
}

func TestInvalidCredentialOfSourceIsNotSent(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		cred Credential
		is   error
	}{
		"nothing":      {Credential{}, ErrNoCredential},
		"empty":        {APIKey(""), ErrInvalidCredential},
		"a line break": {APIKey(testKey + "\nX-Evil: 1"), ErrInvalidCredential},
		"too long":     {APIKey(strings.Repeat(testKey, 1000)), ErrInvalidCredential},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := answering(http.StatusOK, "{}")
			src := CredentialSourceFunc(func(context.Context) (Credential, error) { return tc.cred, nil })
			_, err := clientOver(t, base, src).Do(t.Context(), http.MethodGet, "/x", nil, nil)
			require.ErrorIs(t, err, tc.is)
			assertClean(t, err.Error(), testKey)
			assert.Empty(t, base.requests())
		})
	}
}

func TestClientsAreIndependent(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for i := range 8 {
		base := answering(http.StatusOK, "{}")
		secret, agent := fmt.Sprint("key-", i), fmt.Sprint("agent-", i)
		c := clientOver(t, base, newMint(secret), WithAgentID(agent))
		wg.Go(func() {
			for range 50 {
				if _, err := c.Do(t.Context(), http.MethodGet, "/x", nil, nil); err != nil {
					t.Error(err)
				}
			}
			for _, s := range base.requests() {
				assert.Equal(t, secret, secretOf(s.header))
				assert.Equal(t, agent, s.header.Get("X-Agent-ID"))
			}
		})
	}
	wg.Wait()
}
