package environ

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Environment variables. The platform's Sandbox page documents AGRENTING_API_KEY and
// AGRENTING_ENV, and a client of the live API reads AGRENTING_URL. The others are specific to the
// SDK.
const (
	Environment    = "AGRENTING_ENV"
	AgentID        = "AGRENTING_AGENT_ID"
	URL            = "AGRENTING_URL"
	KeyFile        = "AGRENTING_KEY_FILE"
	SandboxAPIKey  = "AGRENTING_SANDBOX_API_KEY" // #nosec G101 -- the name of a variable
	APIKey         = "AGRENTING_API_KEY"         // #nosec G101 -- the name of a variable
	SessionToken   = "AGRENTING_SESSION_TOKEN"   // #nosec G101 -- the name of a variable
	CredentialType = "AGRENTING_CREDENTIAL_TYPE" // #nosec G101 -- the name of a variable
	UnmarkedTokens = "AGRENTING_UNMARKED_SANDBOX_TOKENS"
	Log            = "AGRENTING_LOG"
)

// UnmarkedAllowed is the only value that [UnmarkedTokens] accepts. It must be written out,
// because it disables a guard.
const UnmarkedAllowed = "allow"

// Reader reads variables. It removes white space around a value. An empty variable counts as
// unset. A variable that contains only white space is an error. Errors name the variable and the
// values that it accepts, and do not show secrets.
type Reader struct {
	lookup func(name string) (value string, found bool)
}

// New returns a reader. A nil lookup is an empty environment.
func New(lookup func(string) (string, bool)) Reader { return Reader{lookup: lookup} }

// Get returns a variable, or "" if it is not set. A value that contains only white space is
// returned unchanged.
func (r Reader) Get(name string) string {
	if r.lookup == nil {
		return ""
	}
	value, found := r.lookup(name)
	if !found {
		return ""
	}
	if trimmed := strings.TrimSpace(value); trimmed != "" {
		return trimmed
	}
	return value
}

// Text returns a variable that must not be only white space. what describes its
// value.
func (r Reader) Text(name, what string) (string, error) {
	value := r.Get(name)
	if value != "" && strings.TrimSpace(value) == "" {
		return "", Invalid(name, "is white space only (want %s)", what)
	}
	return value, nil
}

// Kind returns the kind that [CredentialType] gives for the credential in a key file or an API
// key variable. It returns zero if the variable is unset, so that the prefix decides.
func (r Reader) Kind() (secret.Kind, error) {
	value := r.Get(CredentialType)
	switch ascii.ToLower(value) {
	case "":
		return 0, nil
	case "api_key":
		return secret.KindAPIKey, nil
	case "user_token":
		return secret.KindUserToken, nil
	case "session":
		return secret.KindSession, nil
	default:
		return 0, Invalid(CredentialType, `is %s (want "api_key", "user_token", or "session")`, secret.Quote(value))
	}
}

// AllowsUnmarkedTokens reports whether [UnmarkedTokens] is set to [UnmarkedAllowed].
func (r Reader) AllowsUnmarkedTokens() (bool, error) {
	switch value := r.Get(UnmarkedTokens); {
	case value == "":
		return false, nil
	case ascii.EqualFold(value, UnmarkedAllowed):
		return true, nil
	default:
		return false, Invalid(UnmarkedTokens, "is %s (want %q, or unset); "+
			"it permits user tokens and sessions without a sandbox mark in the sandbox", secret.Quote(value), UnmarkedAllowed)
	}
}

// Logger returns a logger that writes records to w as text, at the level that [Log] names and
// above. It returns nil if [Log] is unset or turns logging off. Any other value is logged as a
// warning and treated as info, because a variable for diagnosis must not stop a program.
func (r Reader) Logger(w io.Writer) *slog.Logger {
	value := r.Get(Log)
	level, known := slog.LevelInfo, true
	switch ascii.ToLower(value) {
	case "", "off", "none", "0":
		return nil
	case "debug":
		level = slog.LevelDebug
	case "info":
		level = slog.LevelInfo
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		known = false
	}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	if !known {
		//nolint:sloglint // one sentence for the person who has set it
		log.Warn(fmt.Sprintf(`agrenting: %s is %s (want "debug", "info", "warn", "error", or "off"); logging at info`, Log, secret.Quote(value)))
	}
	return log
}

// Invalid returns the error of a variable.
func Invalid(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s %s", origin.ErrInvalid, name, fmt.Sprintf(format, args...))
}

// Candidate is a variable that may contain the credential.
type Candidate struct {
	Name string
	// Ignored is set if the variable is not read in this environment.
	Ignored bool

	value secret.Text
}

// IsSet reports whether the variable has a value.
func (c Candidate) IsSet() bool { return c.value.Reveal() != "" }

// Candidates returns the variables that may contain the credential, in the order of precedence.
// Outside the sandbox, the sandbox key is listed only if it is set.
func (r Reader) Candidates(sandbox bool) []Candidate {
	var found []Candidate
	for _, name := range []string{KeyFile, SandboxAPIKey, APIKey, SessionToken} {
		c := Candidate{Name: name, value: secret.New(r.Get(name)), Ignored: name == SandboxAPIKey && !sandbox}
		if !c.Ignored || c.IsSet() {
			found = append(found, c)
		}
	}
	return found
}

// Path returns the path of the key file, if the variable contains one. The file need not exist.
func (c Candidate) Path() (path string, ok bool, err error) {
	if c.Name != KeyFile {
		return "", false, nil
	}
	return c.value.Reveal(), true, c.check("the path of a file that holds one")
}

// Credential parses the value. kind is the result of [Reader.Kind].
func (c Candidate) Credential(kind secret.Kind) (secret.Credential, error) {
	if err := c.check("a credential"); err != nil {
		return secret.Credential{}, err
	}
	if c.Name == SessionToken {
		kind = secret.KindSession
	}
	return secret.Parse(c.Name, c.value.Reveal(), kind)
}

func (c Candidate) check(what string) error {
	if strings.TrimSpace(c.value.Reveal()) != "" {
		return nil
	}
	return fmt.Errorf("%w: %s is white space only (want %s)", secret.ErrInvalidCredential, c.Name, what)
}
