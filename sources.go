package agrenting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agrenting/agrenting-go/internal/command"
)

// Chain returns a source that asks the given sources in order and uses the first
// credential. A source whose error matches [ErrNoCredential], such as a [FileSource]
// without its file, is skipped. Any other error, and any that matches
// [ErrInvalidCredential], ends the search: a vault that is unreachable for a moment, or a
// file that is being written, must not make the program act with another identity. If no
// source has a credential, the error matches [ErrNoCredential] and contains the errors of
// all of them.
//
//	src := agrenting.Chain(
//		agrenting.FileSource("/run/secrets/agrenting"),
//		agrenting.CommandSource("agrenting", "credential"),
//	)
//
// Each request for a credential starts at the first source. The chain is a [Refresher]: after
// a rejection, Refresh is called on the source of the rejected credential, if that is a
// Refresher too. A source that is asked again while requests are made (FileSource,
// [RefreshEvery]) is asked again in a chain, too, as long as this asks no other source.
// [Status] names the source that was used last.
//
// A chain without sources, or with a nil source, fails with [ErrNoCredential] when it is asked. It
// is safe for concurrent use.
func Chain(sources ...CredentialSource) CredentialSource {
	return &chain{sources: slices.Clone(sources), last: make([]Credential, len(sources)), used: -1}
}

type chain struct {
	sources []CredentialSource

	mu   sync.Mutex
	last []Credential // that each source has yielded
	used int          // index of the source that was used last; -1 for none
}

var _ Refresher = (*chain)(nil)

func (c *chain) Credential(ctx context.Context) (Credential, error) {
	return c.ask(ctx, Credential{})
}

func (c *chain) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	return c.ask(ctx, rejected)
}

// ask returns the first credential. rejected is passed to the source that it is from, unless it is zero.
func (c *chain) ask(ctx context.Context, rejected Credential) (Credential, error) {
	none := []error{ErrNoCredential}
	for i, src := range c.sources {
		if src == nil {
			none = append(none, fmt.Errorf("source %d is nil", i+1))
			continue
		}
		cred, err := c.askOne(ctx, i, rejected)
		if err == nil && cred.IsZero() {
			err = fmt.Errorf("%w: the source returned an empty credential and no error", ErrNoCredential)
		}
		switch {
		case err == nil:
			c.note(i, cred)
			return cred, nil
		case !errors.Is(err, ErrNoCredential) || errors.Is(err, ErrInvalidCredential):
			return Credential{}, fmt.Errorf("source %d of the chain: %w", i+1, err)
		}
		none = append(none, fmt.Errorf("source %d: %w", i+1, err))
	}
	return Credential{}, &chainError{none}
}

// askOne asks a source, and tells it of the rejected credential if that is its own.
func (c *chain) askOne(ctx context.Context, i int, rejected Credential) (Credential, error) {
	c.mu.Lock()
	own := !rejected.IsZero() && rejected.Equal(c.last[i])
	c.mu.Unlock()
	if own {
		return refreshFrom(ctx, c.sources[i], rejected)
	}
	return credentialFrom(ctx, c.sources[i])
}

func (c *chain) note(i int, cred Credential) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[i], c.used = cred, i
}

// recheck is how often the chain is asked again because the source in use is, and because one
// before it may have a credential by then. It is zero if that would ask a source that has no
// such interval.
func (c *chain) recheck() time.Duration {
	c.mu.Lock()
	used := c.used
	c.mu.Unlock()
	shortest := time.Duration(0)
	for _, src := range c.sources[:used+1] {
		if src == nil || isFixed(src) {
			continue
		}
		d := recheckInterval(src)
		if d == 0 {
			return 0
		}
		if shortest == 0 || d < shortest {
			shortest = d
		}
	}
	return shortest
}

// cheap reports whether asking costs nothing.
func (c *chain) cheap() bool {
	return !slices.ContainsFunc(c.sources, func(src CredentialSource) bool {
		return src != nil && !isFixed(src) && !isCheap(src)
	})
}

func isFixed(src CredentialSource) bool {
	_, ok := src.(fixedSource)
	return ok
}

// sourceName names the source in use.
func (c *chain) sourceName() string {
	c.mu.Lock()
	used := c.used
	c.mu.Unlock()
	if used < 0 {
		return ""
	}
	return c.describe(used)
}

// describe names a source. Sources of others may print anything.
func (c *chain) describe(i int) string {
	switch src := c.sources[i].(type) {
	case *staticSource, *fileSource, *commandSource, *refreshing, *chain:
		return strings.TrimPrefix(fmt.Sprint(src), "agrenting.")
	default:
		return fmt.Sprintf("source %d (%T)", i+1, src)
	}
}

func (c *chain) String() string {
	names := make([]string, len(c.sources))
	for i := range c.sources {
		names[i] = c.describe(i)
	}
	return "agrenting.Chain(" + strings.Join(names, ", ") + ")"
}

// ShowsNoSecret implements [secret.Named].
func (*chain) ShowsNoSecret() {}

// chainError lists why each source has no credential, on one line.
type chainError struct{ errs []error }

func (e *chainError) Error() string {
	texts := make([]string, len(e.errs)-1)
	for i, err := range e.errs[1:] {
		texts[i] = strings.Replace(err.Error(), ErrNoCredential.Error()+": ", "", 1)
	}
	if len(texts) == 0 {
		texts = []string{"the chain has no sources"}
	}
	return e.errs[0].Error() + ": " + strings.Join(texts, "; ")
}

func (e *chainError) Unwrap() []error { return e.errs }

// RefreshEvery returns a source that is src, asked again at intervals: by the first request after
// each interval, such as 5 minutes, in the background. It is for sources whose credential has no
// expiry but is replaced now and then, so that a new one is used before the platform rejects the
// old one. Without requests, src is not asked. If it fails, the credential in use is kept.
//
//	src := agrenting.RefreshEvery(agrenting.CommandSource("vault", "kv", "get", "-field=key", "secret/agrenting"), 5*time.Minute)
//
// A credential that expires is renewed ahead of that as without RefreshEvery. If RefreshEvery
// is nested, the outer interval applies. An interval of zero or less means that src is asked
// only when a credential is needed. If src is nil, the source fails with [ErrNoCredential].
func RefreshEvery(src CredentialSource, interval time.Duration) CredentialSource {
	if src == nil {
		src = CredentialSourceFunc(func(context.Context) (Credential, error) {
			return Credential{}, fmt.Errorf("%w: the source of RefreshEvery is nil", ErrNoCredential)
		})
	}
	return &refreshing{src, max(0, interval)}
}

type refreshing struct {
	source CredentialSource
	every  time.Duration
}

var _ Refresher = (*refreshing)(nil)

func (r *refreshing) Credential(ctx context.Context) (Credential, error) {
	return credentialFrom(ctx, r.source)
}

func (r *refreshing) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	return refreshFrom(ctx, r.source, rejected)
}

func (r *refreshing) recheck() time.Duration { return r.every }
func (r *refreshing) cheap() bool            { return isCheap(r.source) }

// sourceName names the source in use.
func (r *refreshing) sourceName() string {
	if n, ok := r.source.(interface{ sourceName() string }); ok {
		return n.sourceName()
	}
	return ""
}

func (r *refreshing) String() string {
	inner := &chain{sources: []CredentialSource{r.source}}
	return "agrenting.RefreshEvery(" + strings.TrimPrefix(inner.describe(0), "source 1 ") + ", " + r.every.String() + ")"
}

// ShowsNoSecret implements [secret.Named].
func (*refreshing) ShowsNoSecret() {}

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
// run that began before a rejection prints the rejected credential, the program runs again. A
// run takes up to 25 s. Then, or when no caller waits any more, the program is ended, on Unix
// with all processes of its group. It has no standard input. It inherits the environment except
// the variables that contain a credential: AGRENTING_API_KEY, AGRENTING_SANDBOX_API_KEY, and
// AGRENTING_SESSION_TOKEN.
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
