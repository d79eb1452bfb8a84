package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/keyfile"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// A Credential authenticates requests: the key of an agent, the token of a
// user, or a session. The zero value is not a credential; see [Credential.IsZero].
//
// A Credential is immutable and safe for concurrent use. It prints, logs, and encodes
// as a summary, also within other values:
//
//	agrenting.Credential(api key, sandbox, sha256:1a2b3c4d5e)
//
// Only [Credential.Reveal] returns the secret. Credentials cannot be compared with ==;
// use [Credential.Equal]. They cannot be decoded. Decode the secret as a string,
// and pass it to [ParseCredential], [APIKey], [UserToken], or [SessionToken].
type Credential struct{ c secret.Credential }

// APIKey returns the credential of one agent, sent as X-API-Key. It does not check the
// secret: functions that take the credential return [ErrInvalidCredential] if it cannot
// be sent. For a secret from outside the program, use [ParseCredential], which trims
// and checks it.
func APIKey(secret string) Credential {
	return newCredential(KindAPIKey, secret, time.Time{})
}

// UserToken returns the credential of a user, who may own several agents, sent
// as Authorization: Bearer. Mistakes in the secret are reported as with
// [APIKey].
//
// The platform's Authentication page asks for X-Agent-ID, too, if the user owns more
// than one agent: see [WithAgentID].
func UserToken(secret string) Credential {
	return newCredential(KindUserToken, secret, time.Time{})
}

// SessionToken returns a session as a credential, sent as Authorization: Bearer.
// If its expiry is not known, pass the zero time. The session is then used until the
// platform rejects it. Mistakes in the secret are reported as with [APIKey].
//
// Such a session is not renewed. For sessions that the SDK renews, use the API key and
// [WithSession].
func SessionToken(secret string, expires time.Time) Credential {
	return newCredential(KindSession, secret, expires)
}

func newCredential(kind Kind, text string, expires time.Time) Credential {
	return Credential{secret.NewCredential(secret.Material{Kind: secret.Kind(kind), Secret: text, Expires: expires})}
}

// ParseCredential makes a credential of a secret that comes from outside the program.
// It removes white space around the secret, such as the newline at the end of a file. A
// secret that begins with "ap_" becomes a user token, and any other an API key. The
// platform's pages disagree on the prefix. Where the guess is wrong, use [APIKey] or
// [UserToken], or AGRENTING_CREDENTIAL_TYPE in the environment.
//
// The error matches [ErrInvalidCredential] and says what is wrong and where, without
// any part of the secret. A secret is invalid if it is empty, has white space, control
// characters, or characters outside ASCII, or is longer than 4096 bytes. What was copied
// with it is refused too: quotation marks, brackets, or a comma around it, a name before
// it, as in AGRENTING_API_KEY=…, and a placeholder in its place, such as ${KEY}.
func ParseCredential(secret string) (Credential, error) {
	return parseCredentialAs("the secret", secret, 0)
}

// parseCredentialAs is ParseCredential with the guess replaced by kind, unless
// that is zero. Errors call the secret by what.
func parseCredentialAs(what, text string, kind Kind) (Credential, error) {
	c, err := secret.Parse(what, text, secret.Kind(kind))
	return Credential{c}, err
}

// IsZero reports whether c is the zero value, which is not a credential.
func (c Credential) IsZero() bool { return c.c.IsZero() }

// Kind returns the kind of c; zero for no credential.
func (c Credential) Kind() Kind { return Kind(c.c.Kind()) }

// Reveal returns the secret, and is the only method that does. Do not log the secret;
// log the credential, or its [Credential.Fingerprint].
func (c Credential) Reveal() string { return c.c.Reveal() }

// Expires returns when c expires. The zero time means that this is not known, which is so
// for API keys and user tokens unless [Credential.WithExpiry] has set it: the platform
// documents no expiry of API keys, and a user token does not show its own.
func (c Credential) Expires() time.Time { return c.c.Expires() }

// WithExpiry returns a copy of c that expires at the given time, such as an API key that was
// created with a lifetime. The zero time means that the expiry is not known.
//
// If c is from a [CredentialSource], the source is asked for the next credential ahead of that
// time: in the last fifth of the credential's life, and at most about an hour before its end. A
// session that is obtained with c ends when c expires, or before. With [WithRotation], a key that
// the store has adopted is rotated before it expires. WithExpiry makes no call.
func (c Credential) WithExpiry(expires time.Time) Credential {
	if c.IsZero() {
		return c
	}
	return Credential{c.c.WithExpiry(expires)}
}

// Environment returns [Sandbox] if the secret has a sandbox mark, which is
// "sk_sandbox_" (platform documentation, "Sandbox") or the same with another prefix, and
// "" if it has none. There is no mark of production. A session that the SDK obtained
// has the mark of its key.
func (c Credential) Environment() Environment { return Environment(c.c.Environment()) }

// Fingerprint returns a short hash of the secret, such as "sha256:1a2b3c4d5e", and ""
// for the zero value. It is the same in every process, does not reveal the secret, and
// is safe to log. Two secrets may have the same fingerprint, so use [Credential.Equal]
// to compare credentials.
func (c Credential) Fingerprint() string { return c.c.Fingerprint() }

// Equal reports whether both credentials have the same kind and secret. It ignores
// their expiry. It takes the same time for all secrets.
func (c Credential) Equal(other Credential) bool { return c.c.Equal(other.c) }

// String returns a summary without the secret.
func (c Credential) String() string { return "agrenting.Credential(" + c.c.Summary() + ")" }

// GoString returns what String returns.
func (c Credential) GoString() string { return c.String() }

// Format writes what String returns, for every verb and flag.
func (c Credential) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// LogValue returns what String returns.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (c Credential) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// MarshalJSON returns what String returns, as a JSON string. It cannot be read
// back.
func (c Credential) MarshalJSON() ([]byte, error) { return []byte(`"` + c.String() + `"`), nil }

// header returns the canonical name and the values of the header that carries c,
// and no values for no credential. API keys go under apiKeyHeader, or X-API-Key
// when that is "". The values are shared by all requests: put the slice into a
// header map, but never write to it. It has no spare capacity, so that
// [http.Header.Add] copies it.
func (c Credential) header(apiKeyHeader string) (canonicalName string, values []string) {
	switch {
	case c.IsZero():
		return "", nil
	case c.Kind() != KindAPIKey:
		return wire.HeaderAuthorization, c.c.Values()
	}

	switch apiKeyHeader {
	case "", "X-API-Key", wire.HeaderAPIKey: // without the allocation of canonicalizing
		return wire.HeaderAPIKey, c.c.Values()
	case wire.HeaderAPIKeyAlias:
		return wire.HeaderAPIKeyAlias, c.c.Values()
	default:
		return http.CanonicalHeaderKey(apiKeyHeader), c.c.Values()
	}
}

// validate reports whether c can be sent: [ErrNoCredential] for the zero value,
// [ErrInvalidCredential] for a secret that cannot be one.
func (c Credential) validate() error {
	if c.IsZero() {
		return fmt.Errorf("%w: the zero Credential authenticates nothing; make one with APIKey, UserToken or ParseCredential",
			ErrNoCredential)
	}

	if problem := c.c.Problem(); problem != "" {
		return fmt.Errorf("%w: the %s %s", ErrInvalidCredential, c.Kind(), problem)
	}

	return nil
}

// A CredentialSource yields the credential for requests. It must be safe for concurrent
// use. Requests share one call of it: when there is no valid credential, before it
// expires, after a rejection, and at the interval of [RefreshEvery].
// [SessionService.Authenticate] and rotations may ask it at the same time.
//
// The error is shown to callers, so it must not contain a secret. What looks like one is removed:
// known prefixes, values of members such as "api_key", and words of 20 or more characters that look
// random. An error that wraps
// [ErrNoCredential] means that there is no credential. Any other error means that the
// credential is not available now. Sources should return when ctx ends.
type CredentialSource interface {
	Credential(ctx context.Context) (Credential, error)
}

// A Refresher is a source that is told which of its credentials was rejected. The SDK
// then calls Refresh instead of Credential, once for each rejected credential, and again
// after a pause if it fails. A credential is rejected if the platform says that it is
// dead. If the platform returns 401 to requests but does not say so, the credential may
// be alive; Refresh is then called at most twice a minute.
//
// Refresh returns a credential that replaces the rejected one. If it has nothing newer,
// it returns an error or the rejected credential itself. The credential before the
// rejected one is then used again, if that was not rejected; otherwise, the caller gets
// the error or the platform's 401.
type Refresher interface {
	CredentialSource
	Refresh(ctx context.Context, rejected Credential) (Credential, error)
}

// credentialFrom asks a source. A panic is an error.
func credentialFrom(ctx context.Context, src CredentialSource) (c Credential, err error) {
	defer guardSource(src, &err)
	return src.Credential(ctx)
}

// refreshFrom is credentialFrom after a credential was rejected.
func refreshFrom(ctx context.Context, src CredentialSource, rejected Credential) (c Credential, err error) {
	r, ok := src.(Refresher)
	if !ok {
		return credentialFrom(ctx, src)
	}
	defer guardSource(src, &err)
	return r.Refresh(ctx, rejected)
}

// guardSource removes what looks like a secret from the error of a source, or from the value of
// its panic: a source of the caller may quote the output of a command, for example.
func guardSource(src CredentialSource, err *error) { //nolint:gocritic // it changes the result
	if value := recover(); value != nil { //nolint:revive // it is deferred
		*err = secret.PanicError("the credential source", value)
		return
	}
	switch src.(type) {
	case *staticSource, *fileSource, *storedKey: // whose errors show no content
	default:
		*err = cleanSourceError(*err)
	}
}

// cleanSourceError keeps what an error says about further attempts, also if the error that says
// so is replaced.
func cleanSourceError(err error) error {
	clean := secret.CleanError(err, secret.RedactLikely)
	if clean == nil {
		return nil
	}
	at, lasting := retryAt(err), permanentFailure(err)
	if at.IsZero() != retryAt(clean).IsZero() || lasting != permanentFailure(clean) {
		return &pausedError{at: at, lasting: lasting, err: clean}
	}
	return clean
}

// CredentialSourceFunc is a function that is a [CredentialSource]. It must be safe for
// concurrent use. A nil function is a source that always fails with
// [ErrNoCredential].
type CredentialSourceFunc func(context.Context) (Credential, error)

var _ CredentialSource = CredentialSourceFunc(nil)

// Credential calls f.
func (f CredentialSourceFunc) Credential(ctx context.Context) (Credential, error) {
	if f == nil {
		return Credential{}, fmt.Errorf("%w: the CredentialSourceFunc is nil", ErrNoCredential)
	}

	return f(ctx)
}

// Static returns a source that always yields c. If c cannot be sent, the source returns
// [ErrNoCredential] for the zero value, and [ErrInvalidCredential] otherwise. It never
// blocks and ignores the context.
func Static(c Credential) CredentialSource {
	return &staticSource{credential: c, err: c.validate()}
}

type staticSource struct {
	credential Credential
	err        error
}

func (s *staticSource) Credential(context.Context) (Credential, error) {
	if s.err != nil {
		return Credential{}, s.err
	}

	return s.credential, nil
}

// fixed implements fixedSource.
func (s *staticSource) fixed() (Credential, error) { return s.credential, s.err }

func (*staticSource) description() any { return nil } // it describes the credential

func (s *staticSource) String() string { return "agrenting.Static(" + s.credential.String() + ")" }

// FileSource returns a source that reads the credential from a file, such as a secret
// mounted by Kubernetes, Docker, or Vault, and follows its changes. The file contains
// only the credential. White space around it is removed, and its kind is guessed as by
// [ParseCredential]. Symbolic links are followed. The path may be relative to the
// working directory.
//
// Each call of Credential checks the file's metadata and reads the file again if that
// has changed. There is no goroutine and nothing to close. While the file cannot be
// read, because it is being replaced or written, the last good credential continues to
// be used, unless the platform has rejected it. The source is a [Refresher]: after a
// rejection, it reads the file again regardless of the metadata.
//
// Errors name the path and what is wrong, but never show the content. A file that does not
// exist is an [ErrNoCredential]. A file that is empty, unreadable, or not regular matches
// both [ErrNoCredential] and [ErrInvalidCredential]. Content that is not a credential
// matches only [ErrInvalidCredential]. They also match the cause, such as [fs.ErrNotExist].
// A source is safe for concurrent use.
func FileSource(path string) CredentialSource { return newFileSource(path, 0) }

// newFileSource is FileSource with the kind given, unless that is zero.
func newFileSource(path string, kind Kind) *fileSource {
	return &fileSource{keyfile.New(path, secret.Kind(kind))}
}

// fileSource is a key file as a [Refresher].
type fileSource struct{ file *keyfile.File }

var _ Refresher = (*fileSource)(nil)

func (s *fileSource) Credential(ctx context.Context) (Credential, error) {
	c, err := s.file.Credential(ctx)
	return Credential{c}, err
}

func (s *fileSource) Refresh(ctx context.Context, rejected Credential) (Credential, error) {
	c, err := s.file.Refresh(ctx, rejected.c)
	return Credential{c}, err
}

func (s *fileSource) description() any { return s.file }

func (s *fileSource) String() string {
	return "agrenting.FileSource(" + secret.QuotePath(s.file.Path()) + ")"
}

// recheck is how often the file is checked again while requests use its credential.
func (*fileSource) recheck() time.Duration { return keyfile.Recheck }

// cheap reports that the file may be checked at any time.
func (*fileSource) cheap() bool { return true }

// state describes the file for a list of the sources that were tried. It does not
// read the file.
func (s *fileSource) state() string {
	switch err := s.file.Check(); {
	case err == nil:
		return stateUsed
	case errors.Is(err, fs.ErrNotExist):
		return "file does not exist"
	default:
		return "file cannot be used"
	}
}

// A fixedSource is a source whose credential never changes, so that New can check it.
// The error is what is wrong with the credential.
type fixedSource interface{ fixed() (Credential, error) }

// descriptionOf returns what describes a source in an error: the source, or what is behind it.
func descriptionOf(src CredentialSource) any {
	if d, ok := src.(interface{ description() any }); ok {
		return d.description()
	}
	return src
}

// A rechecker is a source that is asked again and again while requests use its
// credential.
type rechecker interface{ recheck() time.Duration }

// A cheapSource may be asked at any time. It needs no renewal ahead of an expiry, except
// by requests.
type cheapSource interface{ cheap() bool }

// isCheap reports whether asking src costs nothing.
func isCheap(src CredentialSource) bool {
	c, ok := src.(cheapSource)
	return ok && c.cheap()
}

// recheckInterval returns how often src is asked again, and zero if it is not a
// [rechecker]. It may depend on what src has yielded last.
func recheckInterval(src CredentialSource) time.Duration {
	if r, ok := src.(rechecker); ok {
		return r.recheck()
	}
	return 0
}
