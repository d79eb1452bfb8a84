package shield

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"

	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/socket"
)

// Send sends req through base. cred is the credential that the SDK has put into req, if any. Send
// removes cred, and the credentials that the caller has put into req, from errors, from the value
// of a panic, and from what hooks in the request's context receive. If req contains no
// credential, Send only calls base.
func Send(base http.RoundTripper, req *http.Request, cred secret.Credential) (*http.Response, error) {
	if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
		req = req.WithContext(withHooks(req.Context(), trace, redactor(req, cred)))
	}
	resp, panicked, err := send(base, req, cred)
	if panicked != nil {
		panic(panicked)
	}
	if err != nil {
		err = secret.CleanError(err, redactor(req, cred))
	}
	return resp, err
}

// send returns the value of a panic that contained a credential, with the credential removed. The
// panic itself has then ended, because the runtime would print its value. Other panics continue,
// with the frames of base.
func send(base http.RoundTripper, req *http.Request, cred secret.Credential) (resp *http.Response, panicked any, err error) {
	defer func() {
		if value := recover(); value != nil {
			clean, same := secret.CleanPanic(value, redactor(req, cred))
			if same {
				panic(value)
			}
			panicked = clean
		}
	}()
	resp, err = base.RoundTrip(req)
	return resp, nil, err
}

// minHidden is the length of the shortest credential of the caller that is removed, in bytes. A
// shorter one would also match ordinary text.
const minHidden = 8

// redactor returns a function that removes the credentials of a request from texts.
func redactor(req *http.Request, cred secret.Credential) func(string) string {
	hidden := append(origin.Credentials(req.Header), socket.Credentials(req.URL)...)
	if _, password, ok := req.BasicAuth(); ok {
		hidden = append(hidden, password)
	}
	if password, ok := req.URL.User.Password(); ok {
		hidden = append(hidden, password)
	}
	for _, c := range req.Cookies() {
		hidden = append(hidden, c.Value)
	}
	hidden = slices.DeleteFunc(hidden, func(s string) bool { return len(s) < minHidden })
	if !cred.IsZero() {
		hidden = append(hidden, cred.Reveal())
	}
	prepared := sync.OnceValue(func() *secret.Redactor { return secret.NewRedactor(hidden...) })
	return func(text string) string { return prepared().Redact(text) }
}

// Body removes the credentials of req from the errors of the body of its response. It does not
// change the body of a 101, which is a connection.
func Body(req *http.Request, cred secret.Credential, resp *http.Response) {
	if resp.Body != http.NoBody && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &body{ReadCloser: resp.Body, redact: func(text string) string { return redactor(req, cred)(text) }}
	}
}

type body struct {
	io.ReadCloser

	redact func(string) string // printers do not read function values
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // readers return it unwrapped
		err = secret.CleanError(err, b.redact)
	}
	return n, err
}
