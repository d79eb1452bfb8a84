package agrenting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
)

// Paths of the platform's sockets (platform documentation, "Channels" for the
// first two, "WebSocket" for the last).
const (
	// SocketAgent is for agents, with an API key.
	SocketAgent = "/socket/agent"
	// SocketHirer is for users, with a user token.
	SocketHirer = "/socket/hirer"
	// SocketShared takes keys and sessions. The platform's newer pages do not
	// mention it.
	SocketShared = "/socket"
)

// Parameters that carry a credential to a socket. The platform documents no
// header for it.
const (
	paramAPIKey       = "api_key"
	paramSessionToken = "session_token"
)

// defaultSocketVersion is that of the serializer that Phoenix clients speak.
const defaultSocketVersion = "2.0.0"

// Socket says which of the platform's WebSockets is meant. The zero value is the
// one of the credential's kind: [SocketAgent] for an API key, [SocketHirer] for
// a user token, [SocketShared] for a session.
type Socket struct {
	// Path is absolute, such as [SocketAgent].
	Path string
	// Version is the parameter vsn; the default is 2.0.0.
	Version string
	// Endpoint leaves out what Phoenix clients put behind a socket's URL by
	// themselves: /websocket and the parameter vsn.
	Endpoint bool
	// Query has further parameters. It may not have a credential.
	Query url.Values
}

// SocketURL is the URL of a WebSocket. With the credential in it, as the platform
// wants it, it is a secret: it prints, logs and encodes without, and only
// [SocketURL.Reveal] gives it. It is immutable and safe for concurrent use.
type SocketURL struct {
	address string
	full    secret.Text
	cred    Credential
}

// SocketURL returns the URL of a socket with the credential in use now, for
// clients that dial by themselves: wss, or ws where the base URL is plain http,
// and always at the base URL's origin. The credential is the parameter api_key,
// or session_token if it is a session. Ask anew for each connection, since
// credentials are renewed and rotated.
//
// URLs with secrets get into the logs of proxies and into error texts: see
// [SocketURL.Redact]. A WebSocket library that takes an [http.Client] does
// better with [Client.SocketHTTPClient], which keeps the credential out of its
// sight, and renews one that the platform rejects.
//
// The errors are those of [Client.Credential], and [ErrInvalidOption] or
// [ErrForeignOrigin] for a Socket that cannot be used. An anonymous client has
// [ErrNoCredential].
func (c *Client) SocketURL(ctx context.Context, s Socket) (SocketURL, error) {
	l, err := c.core.creds.waitOpen(ctx, nil)
	if err != nil {
		return SocketURL{}, err
	}
	cred := l.Value.cred
	if cred.IsZero() {
		return SocketURL{}, fmt.Errorf("%w: sockets are not for anonymous clients", ErrNoCredential)
	}
	u, err := c.core.socketURL(s, cred.Kind())
	if err != nil {
		return SocketURL{}, err
	}
	out := SocketURL{address: u.String(), cred: cred}
	addSocketCredential(u, cred)
	out.full = secret.New(u.String())
	return out, nil
}

// socketURL is the address without a credential.
func (c *core) socketURL(s Socket, kind Kind) (*url.URL, error) {
	path := s.Path
	if path == "" {
		switch kind {
		case KindUserToken:
			path = SocketHirer
		case KindSession:
			path = SocketShared
		default:
			path = SocketAgent
		}
	}
	if strings.Contains(path, "?") {
		return nil, optionError("Socket", "the path has a query string; give it as Query")
	}
	query := make(url.Values, len(s.Query)+2)
	for name, values := range s.Query {
		if isSocketCredential(name) {
			return nil, optionError("Socket", "the query has a credential; give it to the client")
		}
		query[name] = slices.Clone(values)
	}
	if !s.Endpoint {
		if path = strings.TrimSuffix(path, "/"); !strings.HasSuffix(path, "/websocket") {
			path += "/websocket"
		}
		version := s.Version
		if version == "" {
			version = defaultSocketVersion
		}
		query.Set("vsn", version)
	}
	u, err := origin.Join(c.base, path, query)
	if err != nil {
		return nil, err
	}
	// The base URL was checked: it is https, or http where that is permitted.
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	return u, nil
}

// isSocketCredential reports whether a parameter carries a credential.
func isSocketCredential(name string) bool {
	return strings.EqualFold(name, paramAPIKey) || strings.EqualFold(name, paramSessionToken)
}

func addSocketCredential(u *url.URL, cred Credential) {
	name := paramAPIKey
	if cred.Kind() == KindSession {
		name = paramSessionToken
	}
	pair := name + "=" + url.QueryEscape(cred.Reveal())
	if u.RawQuery != "" {
		pair = "&" + pair
	}
	u.RawQuery += pair
}

// Reveal returns the URL with the credential, and is the only method that does.
// Give it to a dialer, and to nothing else; pass the dialer's errors through
// [SocketURL.Redact].
func (u SocketURL) Reveal() string { return u.full.Reveal() }

// Address returns the URL without the credential: for logs, and to be dialled
// with [Client.SocketHTTPClient].
func (u SocketURL) Address() string { return u.address }

// Redact returns err with everything taken out of its text that the URL keeps
// secret, in any spelling. An error that shows nothing is returned as it is. Of
// one that does, errors.Is still matches all, and errors.As finds what is
// beneath, down to where the secret shows: the [net.OpError] within a
// [url.Error], but not that, since it has the URL.
func (u SocketURL) Redact(err error) error {
	if err == nil || u.cred.IsZero() {
		return err
	}
	hidden := u.cred.Reveal()
	shows := func(err error) bool {
		_, hasURL := err.(*url.Error) //nolint:errorlint // this one, not what is beneath
		return hasURL || secret.Redact(err.Error(), hidden) != err.Error()
	}
	beneath, clean := err, true
	for e := err; e != nil; e = errors.Unwrap(e) {
		if shows(e) {
			clean, beneath = false, errors.Unwrap(e)
		}
	}
	// What an error unwraps to besides, by Unwrap() []error, is not looked into,
	// so nothing beneath such a one is handed out.
	for e := beneath; e != nil; e = errors.Unwrap(e) {
		if _, several := e.(interface{ Unwrap() []error }); several {
			beneath, clean = nil, false
			break
		}
	}
	if clean {
		return err
	}
	return secret.NewError(secret.Redact(err.Error(), hidden), beneath, err)
}

// String returns the address and who connects, without the credential.
func (u SocketURL) String() string {
	if u.cred.IsZero() {
		return "agrenting.SocketURL(none)"
	}
	return "agrenting.SocketURL(" + u.address + ", " + u.cred.Kind().String() + ", " + u.cred.Fingerprint() + ")"
}

// GoString returns what String returns.
func (u SocketURL) GoString() string { return u.String() }

// Format writes what String returns, whatever the verb and its flags.
func (u SocketURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.String()) }

// LogValue returns what String returns.
func (u SocketURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (u SocketURL) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

var errSocketURLDecode = errors.New("agrenting: a SocketURL cannot be decoded, because it is redacted when encoded; " +
	"ask the client for another")

// UnmarshalText always fails: what MarshalText wrote is not the URL.
func (SocketURL) UnmarshalText([]byte) error { return errSocketURLDecode }

// GobEncode always fails, because gob is meant for reading back.
func (SocketURL) GobEncode() ([]byte, error) { return nil, errSocketURLDecode }

// GobDecode always fails, as UnmarshalText does.
func (SocketURL) GobDecode([]byte) error { return errSocketURLDecode }

// SocketHTTPClient returns an http.Client for WebSocket libraries that dial with
// one. It adds the credential to the query of the request as it is sent, so that
// the library, its logs and its errors never have it:
//
//	u, err := client.SocketURL(ctx, agrenting.Socket{})
//	conn, _, err := websocket.Dial(ctx, u.Address(), &websocket.DialOptions{
//		HTTPClient: client.SocketHTTPClient(),
//	})
//
// Everything else is as with [Client.HTTPClient]: the credential goes to the
// pinned origins only, there is one a request, and one that the caller set wins,
// in a header or in the query; a 401 renews it, and handshakes that fail are
// repeated as the [RetryPolicy] says. No redirect is followed. It must not be
// used for anything but sockets: elsewhere the platform wants headers, and
// queries end up in logs. What is below, a transport of [WithTransport], does
// see the query.
//
// A connection lives on when its credential is renewed or rotated; what the
// platform does to one whose key was revoked is not documented.
func (c *Client) SocketHTTPClient() *http.Client {
	t := *c.transport
	t.base = &socketBase{base: t.base}
	return &http.Client{
		Transport:     &socketTransport{t: &t},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// socketTransport is a Transport whose base moves the credential to where sockets
// want it.
type socketTransport struct{ t *Transport }

var _ http.RoundTripper = (*socketTransport)(nil)

func (s *socketTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	// The trace tells the base which credential the request was stamped with. It
	// is one of our own, since the caller's may have been used before.
	ctx := req.Context()
	pc, trace := *perCallFrom(ctx), new(Trace)
	caller := pc.trace
	pc.trace = trace
	own := req.WithContext(pc.in(ctx))
	var resp *http.Response
	var err error
	if req.URL != nil && hasSocketCredential(req.URL) && s.t.origins.Manages(req) && origin.Secure(req.URL, s.t.insecure) {
		resp, err = s.t.pass(own, own)
	} else {
		resp, err = s.t.RoundTrip(own)
	}
	if caller != nil {
		*caller = *trace
	}
	if resp != nil {
		resp.Request = noteOf(resp).on(req)
	}
	return resp, err
}

func hasSocketCredential(u *url.URL) bool {
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(name); err == nil && isSocketCredential(plain) {
			return true
		}
	}
	return false
}

// CloseIdleConnections closes those of the base.
func (s *socketTransport) CloseIdleConnections() { s.t.CloseIdleConnections() }

// String names the transport inside.
func (s *socketTransport) String() string { return "agrenting.SocketTransport(" + s.t.String() + ")" }

// GoString returns what String returns.
func (s *socketTransport) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb and its flags.
func (s *socketTransport) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// socketBase is below a Transport. It takes the header that a request was stamped
// with off again, puts the credential into the query, and lets nothing of that
// back up.
type socketBase struct{ base http.RoundTripper }

func (s *socketBase) RoundTrip(req *http.Request) (*http.Response, error) {
	trace := perCallFrom(req.Context()).trace
	if trace == nil || trace.generation == nil || trace.generation.Value.name == "" {
		return s.base.RoundTrip(req) // not stamped
	}
	stamp := trace.generation.Value
	out, u := *req, *req.URL // its headers are a copy of the caller's already
	delete(out.Header, stamp.name)
	addSocketCredential(&u, stamp.cred)
	out.URL = &u
	resp, err := s.base.RoundTrip(&out)
	if resp != nil {
		resp.Request = req
		for name, values := range resp.Header { // a redirect repeats the query, for one
			for i, value := range values {
				if clean := secret.Redact(value, stamp.cred.Reveal()); clean != value {
					resp.Header[name][i] = clean
				}
			}
		}
	}
	if err != nil {
		err = SocketURL{cred: stamp.cred}.Redact(err)
	}
	return resp, err
}

// CloseIdleConnections closes those of the base.
func (s *socketBase) CloseIdleConnections() {
	if c, ok := s.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
