package agrenting

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeEnv is an environment that records which variables were looked up.
type fakeEnv struct {
	vars   map[string]string
	looked []string
}

func (e *fakeEnv) lookup(name string) (string, bool) {
	e.looked = append(e.looked, name)
	value, found := e.vars[name]

	return value, found
}

func readVars(vars map[string]string, explicit Environment) (envConfig, error) {
	return readEnvironment((&fakeEnv{vars: vars}).lookup, explicit, true)
}

// credentialVars are in the order of precedence.
var credentialVars = []string{
	"AGRENTING_KEY_FILE", "AGRENTING_SANDBOX_API_KEY", "AGRENTING_API_KEY", "AGRENTING_SESSION_TOKEN",
}

func TestPrecedenceOverAllCombinations(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("from-AGRENTING_KEY_FILE\n"), 0o600))

	modes := map[string]struct {
		vars     map[string]string
		explicit Environment
		sandbox  bool
	}{
		"unset":             {},
		"empty":             {vars: map[string]string{"AGRENTING_ENV": ""}},
		"production":        {vars: map[string]string{"AGRENTING_ENV": "production"}},
		"sandbox":           {vars: map[string]string{"AGRENTING_ENV": "SandBox"}, sandbox: true},
		"sandbox by option": {explicit: Sandbox, sandbox: true},
		"option wins":       {vars: map[string]string{"AGRENTING_ENV": "sandbox"}, explicit: Production},
		"option wins back":  {vars: map[string]string{"AGRENTING_ENV": "production"}, explicit: Sandbox, sandbox: true},
	}

	for mode, m := range modes {
		for bits := range 81 { // each variable is unset, empty or set
			vars := maps.Clone(m.vars)
			if vars == nil {
				vars = map[string]string{}
			}

			want := ""

			for i, name := range credentialVars {
				state := bits / []int{1, 3, 9, 27}[i] % 3
				if state > 0 {
					vars[name] = map[bool]string{true: "", false: "from-" + name}[state == 1]
				}

				if state == 2 && name == "AGRENTING_KEY_FILE" {
					vars[name] = file
				}

				if state == 2 && want == "" && (name != "AGRENTING_SANDBOX_API_KEY" || m.sandbox) {
					want = name
				}
			}

			cfg, err := readVars(vars, m.explicit)
			require.NoError(t, err, "%s %v", mode, vars)
			require.Equal(t, want, cfg.sourceName, "%s %v", mode, vars)
			require.Equal(t, want == "", cfg.source == nil)
			require.Equal(t, m.sandbox, cfg.environment == Sandbox)

			if want != "" {
				c, err := cfg.source.Credential(t.Context())
				require.NoError(t, err)
				require.Equal(t, "from-"+want, c.Reveal())
				require.Equal(t, want == "AGRENTING_SESSION_TOKEN", c.Kind() == KindSession)
			}

			for _, s := range cfg.tried {
				require.Equal(t, s.Name == want, s.State == "used", "%s %v %v", mode, vars, cfg.tried)
			}
		}
	}
}

func TestEachVariableShadowsTheNext(t *testing.T) {
	t.Parallel()

	for i, winner := range credentialVars[:len(credentialVars)-1] {
		loser := credentialVars[i+1]

		t.Run(winner+" before "+loser, func(t *testing.T) {
			t.Parallel()

			cfg, err := readVars(map[string]string{winner: "sk_sandbox_one", loser: "sk_sandbox_two"}, Sandbox)
			require.NoError(t, err)
			assert.Equal(t, winner, cfg.sourceName)
			assert.Contains(t, cfg.tried, SourceState{Name: loser, State: "set, but shadowed by " + winner})
		})
	}
}

func TestExplicitCredentialSkipsEnvironment(t *testing.T) {
	t.Parallel()

	env := &fakeEnv{vars: map[string]string{
		"AGRENTING_API_KEY": "k", "AGRENTING_CREDENTIAL_TYPE": "nonsense", "AGRENTING_AGENT_ID": "a", "AGRENTING_URL": "u",
	}}
	cfg, err := readEnvironment(env.lookup, "", false)
	require.NoError(t, err)
	assert.Nil(t, cfg.source)
	assert.Equal(t, "a", cfg.agentID)
	assert.Equal(t, "u", cfg.baseURL)
	assert.ElementsMatch(t, []string{"AGRENTING_ENV", "AGRENTING_AGENT_ID", "AGRENTING_URL"}, env.looked)
}

func TestAnExplicitEnvironmentKeepsItsVariableUnread(t *testing.T) {
	t.Parallel()

	env := &fakeEnv{vars: map[string]string{"AGRENTING_ENV": "nonsense"}}
	cfg, err := readEnvironment(env.lookup, Production, true)
	require.NoError(t, err)
	assert.Equal(t, Production, cfg.environment)
	assert.NotContains(t, env.looked, "AGRENTING_ENV")
}

func TestNilLookupIsEmptyEnvironment(t *testing.T) {
	t.Parallel()

	cfg, err := readEnvironment(nil, Sandbox, true)
	require.NoError(t, err)
	assert.Nil(t, cfg.source)
	assert.Len(t, cfg.tried, 4)
}

func TestTheCredentialTypeOverridesTheGuess(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(file, []byte("ap_x"), 0o600))

	cases := []struct {
		variable, value, kind string
		want                  Kind
	}{
		{"AGRENTING_API_KEY", "ap_x", "", KindUserToken},
		{"AGRENTING_API_KEY", "ap_x", "api_key", KindAPIKey},
		{"AGRENTING_API_KEY", "x", "User_Token", KindUserToken},
		{"AGRENTING_API_KEY", "x", "session", KindSession},
		{"AGRENTING_SANDBOX_API_KEY", "ap_x", "api_key", KindAPIKey},
		{"AGRENTING_KEY_FILE", file, "", KindUserToken},
		{"AGRENTING_KEY_FILE", file, "api_key", KindAPIKey},
		{"AGRENTING_KEY_FILE", file, "session", KindSession},
		{"AGRENTING_SESSION_TOKEN", "ap_x", "", KindSession},
		{"AGRENTING_SESSION_TOKEN", "ap_x", "api_key", KindSession},
	}

	for _, tc := range cases {
		t.Run(tc.variable+" "+tc.kind, func(t *testing.T) {
			t.Parallel()

			cfg, err := readVars(map[string]string{tc.variable: tc.value, "AGRENTING_CREDENTIAL_TYPE": tc.kind}, Sandbox)
			require.NoError(t, err)

			c, err := cfg.source.Credential(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tc.want, c.Kind())
		})
	}
}

func TestInvalidVariableIsNamedButNotShown(t *testing.T) {
	t.Parallel()

	const part = "Zq7Wm3Xp9Rt5Kv2Ln8"

	cases := []struct {
		name, value string
		is          error
		want        string
	}{
		{"AGRENTING_ENV", "staging", ErrInvalidOption, `is "staging" (want "production" or "sandbox")`},
		{"AGRENTING_ENV", " ", ErrInvalidOption, `is " "`},
		{"AGRENTING_ENV", part, ErrInvalidOption, "a value of 18 bytes"},
		{"AGRENTING_CREDENTIAL_TYPE", "apikey", ErrInvalidOption, `is "apikey" (want "api_key", "user_token", or "session")`},
		{"AGRENTING_CREDENTIAL_TYPE", part, ErrInvalidOption, "(want "},
		{"AGRENTING_AGENT_ID", " \t", ErrInvalidOption, "white space only"},
		{"AGRENTING_URL", " ", ErrInvalidOption, "white space only"},
		{"AGRENTING_KEY_FILE", " ", ErrInvalidCredential, "white space only (want the path"},
		{"AGRENTING_SANDBOX_API_KEY", "\n", ErrInvalidCredential, "white space only (want a credential"},
		{"AGRENTING_API_KEY", "\t ", ErrInvalidCredential, "white space only"},
		{"AGRENTING_SESSION_TOKEN", " ", ErrInvalidCredential, "white space only"},
		{"AGRENTING_SANDBOX_API_KEY", part + " x", ErrInvalidCredential, "white space at byte 19 of 20"},
		{"AGRENTING_API_KEY", part + "\n" + part, ErrInvalidCredential, "a line break at byte 19 of 37"},
		{"AGRENTING_API_KEY", `"` + part + `"`, ErrInvalidCredential, "is enclosed in"},
		{"AGRENTING_API_KEY", "${AGRENTING_KEY}", ErrInvalidCredential, "placeholder"},
		{"AGRENTING_SANDBOX_API_KEY", "AGRENTING_API_KEY=" + part, ErrInvalidCredential, `begins with a name and "="`},
		{"AGRENTING_API_KEY", part + ",", ErrInvalidCredential, "has , at byte 19 of 19"},
		{"AGRENTING_SESSION_TOKEN", part + `"`, ErrInvalidCredential, `has " at byte 19 of 19`},
		{"AGRENTING_SESSION_TOKEN", part + "é", ErrInvalidCredential, "not an ASCII character at byte 19"},
		{"AGRENTING_API_KEY", strings.Repeat(part, 1000), ErrInvalidCredential, "18000 bytes"},
	}

	for _, tc := range cases {
		t.Run(tc.name+" "+tc.want, func(t *testing.T) {
			t.Parallel()

			// Of the environment's own accord the sandbox is not chosen here,
			// so that AGRENTING_ENV is read.
			explicit := Sandbox
			if tc.name == "AGRENTING_ENV" {
				explicit = ""
			}

			cfg, err := readVars(map[string]string{tc.name: tc.value}, explicit)
			require.ErrorIs(t, err, tc.is)
			require.ErrorContains(t, err, tc.name)
			require.ErrorContains(t, err, tc.want)
			assert.Empty(t, cfg)

			for i := range len(part) - 5 {
				assert.NotContains(t, err.Error(), part[i:i+6])
			}
		})
	}
}

func TestShadowedVariableIsNotChecked(t *testing.T) {
	t.Parallel()

	cfg, err := readVars(map[string]string{"AGRENTING_API_KEY": "k", "AGRENTING_SESSION_TOKEN": " bad value "}, "")
	require.NoError(t, err)
	assert.Equal(t, "AGRENTING_API_KEY", cfg.sourceName)
}

func TestAKeyFileNeedNotExistYet(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()

	other := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(other, nil, 0o600))

	for value, state := range map[string]string{
		filepath.Join(dir, "absent"):  "file does not exist",
		filepath.Join(other, "below"): "file cannot be used",
		dir:                           "file cannot be used",
	} {
		cfg, err := readVars(map[string]string{"AGRENTING_KEY_FILE": value, "AGRENTING_API_KEY": "k"}, "")
		require.NoError(t, err)
		assert.Equal(t, "AGRENTING_KEY_FILE", cfg.sourceName, "an unusable file does not let the next source in")
		assert.Equal(t, SourceState{Name: "AGRENTING_KEY_FILE", State: "used"}, cfg.tried[0],
			"who has not looked cannot tell it from a file that is there: constructors do no I/O")

		vars := lookupIn(map[string]string{"AGRENTING_KEY_FILE": value, "AGRENTING_API_KEY": "k"})
		assert.Equal(t, SourceState{Name: "AGRENTING_KEY_FILE", State: state}, Sources(vars)[0], "a survey looks")

		client, err := New(vars)
		require.NoError(t, err)
		assert.Equal(t, "AGRENTING_KEY_FILE", client.Status().Source)
		require.NoError(t, client.Close())

		_, err = cfg.source.Credential(t.Context())
		require.ErrorIs(t, err, ErrNoCredential)
	}
}

func TestNoCredentialErrorListsSourcesAndRemedy(t *testing.T) {
	t.Parallel()

	cfg, err := readVars(map[string]string{"AGRENTING_SANDBOX_API_KEY": "sk_sandbox_x"}, "")
	require.NoError(t, err)
	require.Nil(t, cfg.source)

	err = fmt.Errorf("wrapped: %w", cfg.noCredential(SourceState{Name: "WithCredential", State: "not given"}))
	require.ErrorIs(t, err, ErrNoCredential)
	require.NotErrorIs(t, err, ErrInvalidCredential)

	typed, ok := errors.AsType[*NoCredentialError](err)
	require.True(t, ok)
	assert.Equal(t, "agrenting: no credential found; tried in this order: WithCredential (not given), "+
		"AGRENTING_KEY_FILE (not set), AGRENTING_SANDBOX_API_KEY (set, but read in the sandbox only, see AGRENTING_ENV), "+
		"AGRENTING_API_KEY (not set), AGRENTING_SESSION_TOKEN (not set)"+
		". Set AGRENTING_API_KEY to a key from https://agrenting.com/dashboard/api-keys, "+
		"or AGRENTING_KEY_FILE to the path of a file that contains one, or pass one with WithCredential", typed.Error())

	cfg, err = readVars(nil, Sandbox)
	require.NoError(t, err)
	require.ErrorContains(t, cfg.noCredential(), "Set AGRENTING_SANDBOX_API_KEY to a sandbox key")

	names := make([]string, 0, len(cfg.tried))
	for _, s := range cfg.tried {
		names = append(names, s.Name)
	}

	assert.True(t, slices.Equal(credentialVars, names))
	assert.NotEmpty(t, new(NoCredentialError).Error())
}

func TestProcessEnvironmentLookup(t *testing.T) {
	t.Setenv("AGRENTING_TEST_ONLY", "x")

	value, found := processEnvironment("AGRENTING_TEST_ONLY")
	assert.True(t, found)
	assert.Equal(t, "x", value)
}
