package agrenting

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// Environment variables. The platform's Sandbox page documents AGRENTING_API_KEY
// and AGRENTING_ENV, and a client of the live API reads AGRENTING_URL; the others
// are the SDK's own.
const (
	envVarEnvironment    = "AGRENTING_ENV"
	envVarAgentID        = "AGRENTING_AGENT_ID"
	envVarURL            = "AGRENTING_URL"
	envVarKeyFile        = "AGRENTING_KEY_FILE"
	envVarSandboxAPIKey  = "AGRENTING_SANDBOX_API_KEY"
	envVarAPIKey         = "AGRENTING_API_KEY"
	envVarSessionToken   = "AGRENTING_SESSION_TOKEN"
	envVarCredentialType = "AGRENTING_CREDENTIAL_TYPE"
	envVarUnmarkedTokens = "AGRENTING_UNMARKED_SANDBOX_TOKENS"
)

// keyPage is where owners make keys (platform documentation, "Claude Code").
const keyPage = "https://agrenting.com/dashboard/api-keys"

// lookupFunc has the shape of os.LookupEnv.
type lookupFunc = func(name string) (value string, found bool)

// processEnvironment looks a variable up in the environment of the process. It is
// the one place of the SDK that does.
func processEnvironment(name string) (string, bool) { return os.LookupEnv(name) }

// SourceState tells how a source of credentials was found, for example
// {"AGRENTING_API_KEY", "not set"}. See [Sources].
type SourceState struct {
	// Name is an environment variable or an option.
	Name string
	// State says in words how it was found; it never shows a value.
	State string
}

// Used reports whether this is the source that the credential comes from.
func (s SourceState) Used() bool { return s.State == stateUsed }

// States that have a meaning beyond their words.
const (
	stateUsed     = "used"
	stateUnusable = "set, but cannot be used"
	stateSeeds    = "fills the store while that is empty"
)

func shadowedBy(name string) string { return "set, but shadowed by " + name }

// NoCredentialError says that no source has a credential. It matches
// [ErrNoCredential], and its text lists what was tried and how to mend it.
type NoCredentialError struct {
	// Tried has the sources in the order of precedence.
	Tried []SourceState
	// Environment is the choice for which a credential was sought; "" for none.
	Environment Environment
}

// Error lists the sources that were tried, in their order and on one line, and
// says what to do.
func (e *NoCredentialError) Error() string {
	var b strings.Builder

	b.WriteString(ErrNoCredential.Error() + " found")

	for i, s := range e.Tried {
		if i == 0 {
			b.WriteString("; tried in this order: ")
		} else {
			b.WriteString(", ")
		}

		b.WriteString(s.Name + " (" + s.State + ")")
	}

	variable, key := envVarAPIKey, "a key"
	if e.Environment == Sandbox {
		variable, key = envVarSandboxAPIKey, "a sandbox key"
	}

	fmt.Fprintf(&b, "; to mend it, set %s to %s from %s, or %s to the path of a file that holds one, "+
		"or give one to New by WithCredential", variable, key, keyPage, envVarKeyFile)

	return b.String()
}

// Is reports whether target is [ErrNoCredential].
func (e *NoCredentialError) Is(target error) bool { return target == ErrNoCredential }

// envConfig is what the environment says.
type envConfig struct {
	environment Environment // the explicit one, else AGRENTING_ENV
	agentID     string      // not yet validated
	baseURL     string      // not yet validated
	source      CredentialSource
	sourceName  string // the variable that source comes from
	tried       []SourceState
	// usable makes a survey of the search: what it refuses, and what cannot be
	// parsed, is noted instead of being an error. Nil outside [Sources].
	usable func(CredentialSource) bool
}

// noCredential returns the error for an environment without a credential, after
// the sources that come before it.
func (c *envConfig) noCredential(before ...SourceState) error {
	return &NoCredentialError{Tried: slices.Concat(before, c.tried), Environment: c.environment}
}

// readEnvironment reads the variables through lookup; nil is an empty
// environment. An explicit environment takes the place of AGRENTING_ENV. Without
// wantCredential, because there is an explicit credential, no variable that has to
// do with credentials is so much as looked up.
//
// The first of these that is set gives the credential:
//
//  1. AGRENTING_KEY_FILE, a path, see [FileSource]
//  2. AGRENTING_SANDBOX_API_KEY, in the sandbox only
//  3. AGRENTING_API_KEY
//  4. AGRENTING_SESSION_TOKEN
//
// A variable that is empty counts as unset. The key file need not exist yet.
// Errors name the variable and what it accepts, and show no secret.
func readEnvironment(lookup lookupFunc, explicitEnv Environment, wantCredential bool) (envConfig, error) {
	cfg := envConfig{environment: explicitEnv}
	env := envReader{lookup: lookup}

	if explicitEnv == "" {
		if value := env.get(envVarEnvironment); value != "" {
			parsed, err := ParseEnvironment(value)
			if err != nil {
				return envConfig{}, variableError(envVarEnvironment, "is %s, and must be %q or %q or unset",
					secret.Quote(value), Production, Sandbox)
			}

			cfg.environment = parsed
		}
	}

	for _, v := range []struct {
		name string
		to   *string
		what string
	}{
		{envVarAgentID, &cfg.agentID, "the id of an agent"},
		{envVarURL, &cfg.baseURL, "the platform's URL"},
	} {
		value := env.get(v.name)
		if value != "" && strings.TrimSpace(value) == "" {
			return envConfig{}, variableError(v.name, "is white space only, and must be %s or unset", v.what)
		}

		*v.to = value
	}

	if !wantCredential {
		return cfg, nil
	}

	kind, err := env.kind()
	if err != nil {
		return envConfig{}, err
	}

	if err := cfg.findSource(env, kind); err != nil {
		return envConfig{}, err
	}

	return cfg, nil
}

// findSource goes through the variables in the order of precedence.
func (c *envConfig) findSource(env envReader, kind Kind) error {
	for _, name := range []string{envVarKeyFile, envVarSandboxAPIKey, envVarAPIKey, envVarSessionToken} {
		value := env.get(name)
		state := "not set"

		switch {
		case name == envVarSandboxAPIKey && c.environment != Sandbox:
			if value == "" {
				continue
			}

			state = "set, but read in the sandbox only, see " + envVarEnvironment
		case value == "":
		case c.sourceName != "":
			state = shadowedBy(c.sourceName)
		default:
			source, err := sourceOf(name, value, kind)
			if c.usable == nil && err != nil {
				return err
			}

			c.source, c.sourceName, state = source, name, stateUsed
			if c.usable != nil {
				state = c.found(source, err)
			}
		}

		c.tried = append(c.tried, SourceState{Name: name, State: state})
	}

	return nil
}

// found says for a survey how a source was found. A file is looked at here only:
// constructors do no I/O.
func (c *envConfig) found(source CredentialSource, err error) string {
	if err != nil || !c.usable(source) {
		return stateUnusable
	}

	if s, ok := source.(interface{ state() string }); ok {
		return s.state()
	}

	return stateUsed
}

// sourceOf makes a source of the value of a variable. It does not look at files.
func sourceOf(name, value string, kind Kind) (CredentialSource, error) {
	if strings.TrimSpace(value) == "" {
		what := "a credential"
		if name == envVarKeyFile {
			what = "the path of a file that holds one"
		}

		return nil, fmt.Errorf("%w: %s is white space only, and must be %s or unset", ErrInvalidCredential, name, what)
	}

	switch name {
	case envVarKeyFile:
		return newFileSource(value, kind), nil
	case envVarSessionToken:
		kind = KindSession // the name says it all
	}

	c, err := parseCredentialAs(name, value, kind)
	if err != nil {
		return nil, err
	}

	return Static(c), nil
}

// envReader reads variables through lookup.
type envReader struct{ lookup lookupFunc }

// get returns the value, and "" for a variable that is unset.
func (r envReader) get(name string) string {
	if r.lookup == nil {
		return ""
	}

	value, found := r.lookup(name)
	if !found {
		return ""
	}

	return value
}

// kind returns what AGRENTING_CREDENTIAL_TYPE says about the credential in
// AGRENTING_KEY_FILE or an API key variable; zero leaves it to the guess by
// prefix.
func (r envReader) kind() (Kind, error) {
	value := r.get(envVarCredentialType)

	switch strings.ToLower(value) {
	case "":
		return 0, nil
	case "api_key":
		return KindAPIKey, nil
	case "user_token":
		return KindUserToken, nil
	case "session":
		return KindSession, nil
	default:
		return 0, variableError(envVarCredentialType, `is %s, and must be "api_key", "user_token" or "session" or unset`,
			secret.Quote(value))
	}
}

// unmarkedTokens reports whether AGRENTING_UNMARKED_SANDBOX_TOKENS says what
// [WithUnmarkedSandboxTokens] says. A guard is not lifted by whatever is not
// empty: the one word that lifts it has to be written out.
func (r envReader) unmarkedTokens() (bool, error) {
	switch value := r.get(envVarUnmarkedTokens); {
	case value == "":
		return false, nil
	case strings.EqualFold(value, unmarkedAllowed):
		return true, nil
	default:
		return false, variableError(envVarUnmarkedTokens, "is %s, and must be %q or unset; "+
			"it lets user tokens and sessions without a sandbox mark into the sandbox", secret.Quote(value), unmarkedAllowed)
	}
}

// unmarkedAllowed is what AGRENTING_UNMARKED_SANDBOX_TOKENS accepts.
const unmarkedAllowed = "allow"

func variableError(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s %s", ErrInvalidOption, name, fmt.Sprintf(format, args...))
}
