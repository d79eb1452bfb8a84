package agrenting

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestParseEnvironmentKnowsTwoNames(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]Environment{
		"production": Production, "sandbox": Sandbox, "Sandbox": Sandbox, "PRODUCTION": Production,
	} {
		got, err := ParseEnvironment(text)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}

	for _, text := range []string{"", "prod", "sandbox ", "staging", "live", "\u017fandbox", "sk_sandbox_Zq7Wm3Xp9Rt5", strings.Repeat("x", 1<<16)} {
		got, err := ParseEnvironment(text)
		require.ErrorIs(t, err, ErrInvalidOption)
		require.ErrorContains(t, err, `"production" or "sandbox"`)
		assert.Empty(t, got)
		assert.Less(t, len(err.Error()), 200)
		assert.NotContains(t, err.Error(), "Zq7Wm3")
	}
}

func TestOnlyTheSandboxHasAMark(t *testing.T) {
	t.Parallel()

	for secret, want := range map[string]Environment{
		"sk_sandbox_abc123":      Sandbox,
		"ap_sandbox_abc123":      Sandbox,
		"xY9_sandbox_abc123":     Sandbox,
		"sk_sandbox_":            Sandbox,
		"sk_live_abc123":         "",
		"sk_prod_abc123":         "",
		"sk_live_sandbox_abc123": "",
		"_sandbox_abc123":        "",
		"a-b_sandbox_abc123":     "",
		"sk_sandboxabc123":       "",
		"sandbox_abc123":         "",
		"abc123":                 "",
		"sk_SANDBOX_abc123":      "",
		"{b_sandbox_abc123":      "",
		"":                       "",
	} {
		assert.Equal(t, want, APIKey(secret).Environment(), secret)
		assert.Equal(t, want, UserToken(secret).Environment(), secret)
	}
}

func TestTheGuardKeepsEnvironmentsApart(t *testing.T) {
	t.Parallel()

	var (
		markedKey     = APIKey("sk_sandbox_Zq7Wm3Xp9")
		plainKey      = APIKey("Zq7Wm3Xp9Rt5")
		markedToken   = UserToken("ap_sandbox_Zq7Wm3Xp9")
		plainToken    = UserToken("ap_Zq7Wm3Xp9Rt5")
		plainSession  = SessionToken("Zq7Wm3Xp9Rt5", time.Time{})
		markedSession = SessionToken("st_sandbox_Zq7Wm3Xp9", time.Time{})
		boughtMarked  = Credential{secret.NewSession("Zq7Wm3Xp9Rt5", time.Time{}, markedKey.c)}
		boughtPlain   = Credential{secret.NewSession("Zq7Wm3Xp9Rt5", time.Time{}, plainKey.c)}
	)

	cases := map[string]struct {
		credential                 Credential
		sandbox, optIn, production bool // whether it is accepted
	}{
		"marked key":                  {markedKey, true, true, false},
		"unmarked key":                {plainKey, false, false, true},
		"marked user token":           {markedToken, true, true, false},
		"unmarked user token":         {plainToken, false, true, true},
		"marked session":              {markedSession, true, true, false},
		"unmarked session":            {plainSession, false, true, true},
		"session of a marked key":     {boughtMarked, true, true, false},
		"session of an unmarked key":  {boughtPlain, true, true, true},
		"no credential":               {Credential{}, true, true, true},
		"session of a marked session": {Credential{secret.NewSession("x", time.Time{}, boughtMarked.c)}, true, true, false},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			for _, check := range []struct {
				want     Environment
				allow    bool
				accepted bool
			}{
				{Sandbox, false, tc.sandbox},
				{Sandbox, true, tc.optIn},
				{Production, false, tc.production},
				{Production, true, tc.production},
				{"", false, true},
				{"", true, true},
				{"staging", true, tc.credential.IsZero()},
			} {
				err := checkEnvironment(check.want, tc.credential, check.allow)
				if check.accepted {
					require.NoError(t, err, "%+v", check)

					continue
				}

				require.ErrorIs(t, err, ErrEnvironmentMismatch, "%+v", check)
				require.ErrorContains(t, err, string(check.want))
				require.ErrorContains(t, err, tc.credential.Kind().String())
				if check.want == Sandbox || check.want == Production {
					require.ErrorContains(t, err, "sandbox mark")
				}

				assert.NotContains(t, err.Error(), "Zq7Wm3")
			}
		})
	}
}

func TestEnvironmentErrorOffersOptInOnlyForTokens(t *testing.T) {
	t.Parallel()

	require.ErrorContains(t, checkEnvironment(Sandbox, UserToken("ap_x"), false), "WithUnmarkedSandboxTokens")
	require.ErrorContains(t, checkEnvironment(Sandbox, SessionToken("x", time.Time{}), false), "WithUnmarkedSandboxTokens")
	assert.NotContains(t, checkEnvironment(Sandbox, APIKey("x"), false).Error(), "WithUnmarkedSandboxTokens")
}

func TestEffectiveEnvironment(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		want       Environment
		credential Credential
		effective  Environment
	}{
		"choice":                     {Sandbox, APIKey("k"), Sandbox},
		"choice without credential":  {Production, Credential{}, Production},
		"mark":                       {"", APIKey("sk_sandbox_x"), Sandbox},
		"unmarked key":               {"", APIKey("k"), Production},
		"unmarked token":             {"", UserToken("ap_k"), ""},
		"session of a sandbox key":   {"", Credential{secret.NewSession("s", time.Time{}, APIKey("sk_sandbox_x").c)}, Sandbox},
		"nothing":                    {"", Credential{}, ""},
		"session of unknown descent": {"", SessionToken("s", time.Time{}), ""},
	}

	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.effective, effectiveEnvironment(tc.want, tc.credential))
		})
	}
}

func TestUnmarkedTokensVariableAllowsEnvironmentTokens(t *testing.T) {
	t.Parallel()
	env := func(more map[string]string) Option {
		vars := map[string]string{"AGRENTING_ENV": "sandbox", "AGRENTING_UNMARKED_SANDBOX_TOKENS": "allow"}
		maps.Copy(vars, more)
		return lookupIn(vars)
	}
	cases := map[string]struct {
		opts []Option
		is   error
	}{
		"a user token":         {[]Option{env(map[string]string{"AGRENTING_API_KEY": "ap_1"})}, nil},
		"a session":            {[]Option{env(map[string]string{"AGRENTING_SESSION_TOKEN": "st_1"})}, nil},
		"in any case":          {[]Option{env(map[string]string{"AGRENTING_API_KEY": "ap_1", "AGRENTING_UNMARKED_SANDBOX_TOKENS": "Allow"})}, nil},
		"not said":             {[]Option{env(map[string]string{"AGRENTING_API_KEY": "ap_1", "AGRENTING_UNMARKED_SANDBOX_TOKENS": ""})}, ErrEnvironmentMismatch},
		"an API key never":     {[]Option{env(map[string]string{"AGRENTING_API_KEY": "k1"})}, ErrEnvironmentMismatch},
		"nor one from code":    {[]Option{env(nil), WithCredential(UserToken("ap_1"))}, ErrEnvironmentMismatch},
		"which has the option": {[]Option{env(nil), WithCredential(UserToken("ap_1")), WithUnmarkedSandboxTokens()}, nil},
		"yes is not accepted":  {[]Option{env(map[string]string{"AGRENTING_API_KEY": "ap_1", "AGRENTING_UNMARKED_SANDBOX_TOKENS": "yes"})}, ErrInvalidOption},
		"nor is it 1":          {[]Option{env(map[string]string{"AGRENTING_API_KEY": "ap_1", "AGRENTING_UNMARKED_SANDBOX_TOKENS": "1"})}, ErrInvalidOption},
		"wrong in production":  {[]Option{env(map[string]string{"AGRENTING_API_KEY": "ap_1", "AGRENTING_ENV": "production", "AGRENTING_UNMARKED_SANDBOX_TOKENS": "no"})}, ErrInvalidOption},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := New(tc.opts...)
			require.ErrorIs(t, err, tc.is)
			switch {
			case errors.Is(err, ErrInvalidOption):
				require.ErrorContains(t, err, "AGRENTING_UNMARKED_SANDBOX_TOKENS is ")
				require.ErrorContains(t, err, `(want "allow", or unset)`)
			case err == nil:
				require.NoError(t, c.Close())
			}
		})
	}
	_, err := New(lookupIn(map[string]string{"AGRENTING_ENV": "sandbox", "AGRENTING_API_KEY": "ap_1"}))
	require.ErrorContains(t, err, "AGRENTING_UNMARKED_SANDBOX_TOKENS=allow", "the way out is named")
}
