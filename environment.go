package agrenting

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// keyPage is where owners make keys (platform documentation, "Claude Code").
const keyPage = "https://agrenting.com/dashboard/api-keys"

// lookupFunc has the shape of os.LookupEnv.
type lookupFunc = func(name string) (value string, found bool)

// processEnvironment looks a variable up in the environment of the process. It is
// the one place of the SDK that does.
func processEnvironment(name string) (string, bool) { return os.LookupEnv(name) }

// SourceState describes a source of credentials, for example
// {"AGRENTING_API_KEY", "not set"}. See [Sources].
type SourceState struct {
	// Name is an environment variable or an option.
	Name string
	// State describes the source in words, without its value.
	State string
}

// Used reports whether this is the source that the credential comes from.
func (s SourceState) Used() bool { return s.State == stateUsed }

// States that have a meaning beyond their words.
const (
	stateUsed     = "used"
	stateUnusable = "set, but cannot be used"
	stateInitial  = "fills the store while that is empty"
)

func shadowedBy(name string) string { return "set, but shadowed by " + name }

// NoCredentialError says that no source has a credential. It matches
// [ErrNoCredential], and its text lists what was tried and how to fix it.
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

	variable, key := environ.APIKey, "a key"
	if e.Environment == Sandbox {
		variable, key = environ.SandboxAPIKey, "a sandbox key"
	}

	fmt.Fprintf(&b, ". Set %s to %s from %s, or %s to the path of a file that contains one, "+
		"or pass one with WithCredential", variable, key, keyPage, environ.KeyFile)

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
// wantCredential, because there is an explicit credential, variables about
// credentials are not read.
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
	vars := environ.New(lookup)
	var err error
	if explicitEnv == "" {
		if cfg.environment, err = environmentIn(vars); err != nil {
			return envConfig{}, err
		}
	}
	if cfg.agentID, err = vars.Text(environ.AgentID, "the id of an agent"); err != nil {
		return envConfig{}, err
	}
	if cfg.baseURL, err = vars.Text(environ.URL, "the platform's URL"); err != nil {
		return envConfig{}, err
	}
	if !wantCredential {
		return cfg, nil
	}
	kind, err := vars.Kind()
	if err != nil {
		return envConfig{}, err
	}
	if err := cfg.findSource(vars, kind); err != nil {
		return envConfig{}, err
	}
	return cfg, nil
}

// environmentIn returns what AGRENTING_ENV says; "" if it is not set.
func environmentIn(vars environ.Reader) (Environment, error) {
	value := vars.Get(environ.Environment)
	if value == "" {
		return "", nil
	}
	env, err := ParseEnvironment(value)
	if err != nil {
		return "", environ.Invalid(environ.Environment, "is %s (want %q or %q)",
			secret.Quote(value), Production, Sandbox)
	}
	return env, nil
}

// findSource goes through the variables in the order of precedence.
func (c *envConfig) findSource(vars environ.Reader, kind secret.Kind) error {
	for _, v := range vars.Candidates(c.environment == Sandbox) {
		state := "not set"
		switch {
		case v.Ignored:
			state = "set, but read in the sandbox only, see " + environ.Environment
		case !v.IsSet():
		case c.sourceName != "":
			state = shadowedBy(c.sourceName)
		default:
			source, err := sourceOf(v, kind)
			if c.usable == nil && err != nil {
				return err
			}
			c.source, c.sourceName, state = source, v.Name, stateUsed
			if c.usable != nil {
				state = c.found(source, err)
			}
		}
		c.tried = append(c.tried, SourceState{Name: v.Name, State: state})
	}
	return nil
}

// sourceOf makes a source of a variable. It does not read files.
func sourceOf(v environ.Candidate, kind secret.Kind) (CredentialSource, error) {
	if path, ok, err := v.Path(); err != nil {
		return nil, err
	} else if ok {
		return newFileSource(path, Kind(kind)), nil
	}
	c, err := v.Credential(kind)
	if err != nil {
		return nil, err
	}
	return Static(Credential{c}), nil
}

// found describes a source for a survey. Only a survey checks a file: constructors do
// no I/O.
func (c *envConfig) found(source CredentialSource, err error) string {
	if err != nil || !c.usable(source) {
		return stateUnusable
	}

	if s, ok := source.(interface{ state() string }); ok {
		return s.state()
	}

	return stateUsed
}
