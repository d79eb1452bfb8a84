package agrenting

import (
	"context"

	"github.com/agrenting/agrenting-go/internal/command"
)

// CommandSource returns a source that runs a program and reads the credential from its
// standard output. The program is named as for [os/exec.LookPath], such as "vault" or
// "/usr/local/bin/agrenting-key". No shell is involved:
//
//	src := agrenting.CommandSource("vault", "kv", "get", "-field=key", "secret/agrenting")
//
// The program prints the secret alone, whose kind is guessed as by [ParseCredential], or a
// JSON object:
//
//	{"secret": "…", "expires": "2026-03-01T12:00:00Z", "kind": "session"}
//
// "expires" is an RFC 3339 time or seconds since 1970, and may be missing. The credential is
// then used until the platform rejects it; see [RefreshEvery]. "kind" is api_key, user_token, or
// session. Without it, the kind is guessed. Other members are ignored. This is the format of
// the command "agrenting credential". Also read are an ExecCredential of Kubernetes, a token
// response of OAuth 2.0, "api_key" and "session_token" instead of "secret", and "expires_at",
// "expiry", and "expiration" instead of "expires".
//
// All callers that ask while the program runs share that run. The source is a [Refresher]: if a
// run that began before a rejection prints the rejected credential, the program runs again. A run takes up to 25 s. Then, or
// when no caller waits any more, the program is ended, on Unix with all processes of its group.
// It has no standard input. It inherits the environment except the variables that contain
// a credential: AGRENTING_API_KEY, AGRENTING_SANDBOX_API_KEY, and AGRENTING_SESSION_TOKEN.
//
// A program that is not found or prints nothing is an [ErrNoCredential]. Any other output without
// a credential, such as {"errors": […]}, is an [ErrInvalidCredential]. A program that exists but
// cannot be started is neither: the error wraps the cause, such as [io/fs.ErrPermission]. If the
// program fails, the error wraps an [*os/exec.ExitError], or matches [context.DeadlineExceeded]
// after 25 s. It contains up to 2 KiB of what the program wrote to standard error, without what
// looks like a secret. Errors show neither the arguments nor the output, but other users of the
// machine can see the arguments, so put no secret into them. A source is safe for concurrent use.
func CommandSource(name string, args ...string) CredentialSource {
	return &commandSource{command.New(0, name, args...)}
}

type commandSource struct{ command *command.Command }

var _ Refresher = (*commandSource)(nil)

func (s *commandSource) Credential(ctx context.Context) (Credential, error) {
	c, err := s.command.Credential(ctx)
	return Credential{c}, err
}

func (s *commandSource) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	c, err := s.command.Refresh(ctx, rejected.c)
	return Credential{c}, err
}

func (s *commandSource) String() string { return "agrenting." + s.sourceName() }

// ShowsNoSecret implements [secret.Named].
func (*commandSource) ShowsNoSecret() {}

// sourceName names the program.
func (s *commandSource) sourceName() string { return "CommandSource(" + s.command.Name() + ")" }
