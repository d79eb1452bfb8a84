package agrenting

import (
	"fmt"

	"github.com/agrenting/agrenting-go/internal/ascii"
	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Environment is a side of the platform. Both have the same host and paths, and
// only the credential tells them apart (platform documentation, "Sandbox"), which
// is why the SDK guards against mixing them up. With the zero value, the credential
// decides.
type Environment string

const (
	// Production is where money is real and data is kept.
	Production Environment = "production"
	// Sandbox is where money and the work of agents are simulated and data is
	// kept for seven days (platform documentation, "Sandbox").
	Sandbox Environment = "sandbox"
)

// ParseEnvironment returns the environment called s, in letters of any case:
// "production" or "sandbox". Anything else is an [ErrInvalidOption], also the
// empty string.
func ParseEnvironment(s string) (Environment, error) {
	for _, e := range []Environment{Production, Sandbox} {
		if ascii.EqualFold(s, string(e)) {
			return e, nil
		}
	}

	return "", fmt.Errorf("%w: invalid environment %s (want %q or %q)", ErrInvalidOption, secret.Quote(s), Production, Sandbox)
}

// effectiveEnvironment returns the environment that a client with this choice
// and this credential works in: the choice, else the credential's mark, else
// production for an API key, since production keys are the ones without a mark.
// It is "" where nothing tells, as with a user token: those are unmarked on
// either side.
func effectiveEnvironment(want Environment, c Credential) Environment {
	switch {
	case want != "":
		return want
	case c.Environment() != "":
		return c.Environment()
	case c.Kind() == KindAPIKey:
		return Production
	default:
		return ""
	}
}

// checkEnvironment refuses, with [ErrEnvironmentMismatch], a credential that does
// not belong to the environment that was asked for. The sandbox takes only
// credentials with its mark, production none with that mark, and no choice takes
// either.
//
// User tokens and sessions have no mark even in the sandbox, so the sandbox accepts
// unmarked ones if allowUnmarkedToken is set. It never accepts unmarked API keys, because
// those belong to production. A session that the SDK obtained needs no mark, because its
// key was checked.
func checkEnvironment(want Environment, c Credential, allowUnmarkedToken bool) error {
	if c.IsZero() || want == "" {
		return nil
	}

	marked := c.Environment() == Sandbox

	var found, fix string

	switch want {
	case Sandbox:
		if marked || c.c.Exchanged() {
			return nil
		}

		if c.Kind() != KindAPIKey && allowUnmarkedToken {
			return nil
		}

		found = "has no sandbox mark"
		fix = "Create a key with the dashboard's Sandbox switch on (it begins with sk_sandbox_), and set AGRENTING_SANDBOX_API_KEY " +
			"or pass it with WithCredential. For production, unset AGRENTING_ENV and WithEnvironment"

		if c.Kind() != KindAPIKey {
			fix += ". If this " + c.Kind().String() + " is known to belong to the sandbox, allow it with WithUnmarkedSandboxTokens" +
				" or, where it comes from the environment, " + environ.UnmarkedTokens + "=" + environ.UnmarkedAllowed
		}
	case Production:
		if !marked {
			return nil
		}

		found = "has a sandbox mark"
		fix = "Use a production key, or select the sandbox with AGRENTING_ENV=sandbox or WithEnvironment(Sandbox)"
	default: // fail closed
		found = "cannot be checked against an unknown environment"
		fix = "Use Production or Sandbox"
	}

	return fmt.Errorf("%w: the client uses %s, but the %s %s %s. %s",
		ErrEnvironmentMismatch, secret.Quote(string(want)), c.Kind(), c.Fingerprint(), found, fix)
}
