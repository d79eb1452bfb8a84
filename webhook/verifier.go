package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/agrenting/agrenting-go/internal/ascii"
)

var (
	// ErrSignature means that a webhook is not signed with any of the given secrets:
	// its signature is missing, malformed, or different. Neither the error nor the
	// response to the sender says which.
	ErrSignature = errors.New("agrenting: the webhook's signature is not valid")
	// ErrInvalidOption means that an argument of [NewVerifier] or
	// [Verifier.SetSecrets] has an invalid value.
	ErrInvalidOption = errors.New("agrenting: invalid webhook option")
)

func optionError(name, format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrInvalidOption, name, fmt.Sprintf(format, args...))
}

// Headers of webhooks, as the platform's own client reads them. Older pages of the
// platform write X-Webhook-Secret and give no algorithm.
const (
	headerSignature = "X-Webhook-Signature"
	headerEvent     = "X-Webhook-Event"
	headerTaskID    = "X-Webhook-Task-Id"
)

const (
	// defaultBodyLimit is documented in WithBodyLimit.
	defaultBodyLimit = 1 << 20
	// maxSecrets bounds the cost of an unsigned request, because the body is hashed
	// once per secret.
	maxSecrets = 4
)

// A Verifier recognizes webhooks of the platform by the HMAC-SHA256 of the body in
// X-Webhook-Signature. It is safe for concurrent use. Its printed and logged forms do
// not show the secrets.
//
// A signature proves that the sender knows the secret and wrote this body. It does not
// prove when: the platform documents neither a timestamp nor a nonce, so anyone who
// has seen a webhook can send it again. The headers, including X-Webhook-Event, are
// not signed. So treat a webhook as a hint, and read the task with your own credential
// before you act on it:
//
//	var task Task
//	_, err := client.Do(ctx, http.MethodGet, "/api/v1/tasks/"+url.PathEscape(d.TaskID), nil, &task)
//
// With [WithLedger], the same body is handled only once.
type Verifier struct {
	header  string
	limit   int64
	log     *slog.Logger // nil is silent
	ledger  Ledger
	secrets atomic.Pointer[[]Secret]
}

// An Option configures [NewVerifier].
type Option func(*Verifier) error

// WithHeader names the header that carries the signature. The default is
// X-Webhook-Signature. The platform's pages disagree on the name.
func WithHeader(name string) Option {
	return func(v *Verifier) error {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return optionError("WithHeader", "not the name of a header")
		}
		v.header = http.CanonicalHeaderKey(name)
		return nil
	}
}

// WithBodyLimit bounds the body in bytes. The default is 1 MiB. The response to a
// larger body is 413. A body up to the limit is kept in memory before its signature is
// checked, so the limit bounds how much memory each request of any sender can use.
func WithBodyLimit(n int64) Option {
	return func(v *Verifier) error {
		if n <= 0 {
			return optionError("WithBodyLimit", "%d is not positive", n)
		}
		v.limit = n
		return nil
	}
}

// WithLogger logs, at level Warn, why a webhook was refused. The sender does not learn
// the reason. Records do not contain a body, a signature, or a secret. By default, and
// if l is nil, nothing is logged.
func WithLogger(l *slog.Logger) Option {
	return func(v *Verifier) error {
		v.log = l
		return nil
	}
}

// WithLedger prevents a body from being handled twice; see [Ledger]. Without it, every
// valid webhook is passed to the handler.
func WithLedger(l Ledger) Option {
	return func(v *Verifier) error {
		if l == nil {
			return optionError("WithLedger", "the ledger is nil")
		}
		v.ledger = l
		return nil
	}
}

// NewVerifier returns a verifier that accepts signatures with any of one to four
// secrets. To change the secret, pass the new one and the old one, change the webhook
// on the platform, and then remove the old one with [Verifier.SetSecrets].
//
// The error matches [ErrInvalidOption] or [ErrInvalidSecret].
func NewVerifier(secrets []Secret, opts ...Option) (*Verifier, error) {
	v := &Verifier{header: headerSignature, limit: defaultBodyLimit}
	if err := v.SetSecrets(secrets...); err != nil {
		return nil, err
	}
	for _, opt := range opts {
		if opt == nil {
			return nil, optionError("NewVerifier", "an option is nil")
		}
		if err := opt(v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// SetSecrets replaces the secrets for requests that arrive from now on. If it returns
// an error, the previous secrets continue to be used.
func (v *Verifier) SetSecrets(secrets ...Secret) error {
	switch {
	case len(secrets) == 0:
		return optionError("SetSecrets", "no secret given, so every webhook would be refused")
	case len(secrets) > maxSecrets:
		return optionError("SetSecrets", "%d secrets given (want at most %d)", len(secrets), maxSecrets)
	}
	for _, s := range secrets {
		if err := s.check(); err != nil {
			return err
		}
	}
	kept := append([]Secret(nil), secrets...)
	v.secrets.Store(&kept)
	return nil
}

// Verify checks that signature is the signature of body with one of the secrets. body
// must be unchanged, byte for byte. If the signature is not valid, the error is
// [ErrSignature]. Use Verify if you do not receive webhooks through net/http.
//
// The platform's own client writes the 32 bytes of the HMAC in base64. The platform's
// pages do not specify the encoding, so Verify accepts base64 in either alphabet,
// padded or not, and hex, each with or without "sha256=" before it. It compares the
// decoded bytes, so all encodings are equally strict. It refuses other algorithms,
// several signatures at once, and the secret itself in place of a signature.
//
// The time that Verify takes depends on the length of body and the number of secrets.
// It does not depend on where a signature differs or which secret it belongs to.
func (v *Verifier) Verify(body []byte, signature string) error {
	mac, ok := parseSignature(signature)
	if !ok {
		return ErrSignature
	}
	return v.verify(body, mac)
}

func (v *Verifier) verify(body []byte, mac signatureMAC) error {
	found := false
	for _, s := range *v.secrets.Load() {
		h := hmac.New(sha256.New, []byte(s.Reveal()))
		_, _ = h.Write(body)
		// Every secret is tried, so that the time does not depend on which one fits.
		found = hmac.Equal(h.Sum(nil), mac[:]) || found
	}
	if !found {
		return ErrSignature
	}
	return nil
}

type signatureMAC = [sha256.Size]byte

// signaturePrefix names the algorithm, if the sender does so. It cannot be the
// beginning of the MAC itself, because base64 does not contain "=" in the middle.
const signaturePrefix = "sha256="

// parseSignature reads a MAC in any of the encodings that Verify accepts. Their
// lengths differ, so they cannot be confused.
func parseSignature(text string) (mac signatureMAC, ok bool) {
	text = strings.Trim(text, " \t")
	if p := len(signaturePrefix); len(text) > p && ascii.EqualFold(text[:p], signaturePrefix) {
		text = text[p:]
	}
	// The decoder of base64 skips line breaks.
	if strings.ContainsAny(text, "\r\n") {
		return mac, false
	}
	var raw []byte
	var err error
	switch len(text) {
	case hex.EncodedLen(sha256.Size):
		raw, err = hex.DecodeString(text)
	case base64.RawStdEncoding.EncodedLen(sha256.Size), base64.StdEncoding.EncodedLen(sha256.Size):
		encoding := base64.RawStdEncoding
		if strings.ContainsAny(text, "-_") {
			encoding = base64.RawURLEncoding
		}
		raw, err = encoding.Strict().DecodeString(strings.TrimSuffix(text, "="))
	default:
		return mac, false
	}
	if err != nil || len(raw) != sha256.Size {
		return mac, false
	}
	return signatureMAC(raw), true
}

// Handler returns a handler that passes valid webhooks to next. To all other requests,
// it responds itself:
//
//   - 405, with Allow, to anything other than POST
//   - 401 to a signature that is missing, malformed, repeated, or not that of the
//     body under any of the secrets, always with the same text
//   - 413 to a body beyond the limit
//   - 400 to a body that is truncated, or signed but not a JSON object
//   - with [WithLedger], 200 to a body that was handled before, and 503 with
//     Retry-After to one that is being handled, or if the ledger fails
//
// The handler next finds the body in the request, byte for byte, and the [Delivery] in
// its context, with [FromContext]. The response of next is sent to the platform, which
// repeats a webhook if the response is not a success. Its schedule is not documented.
// So respond quickly, and do the work afterwards.
//
// Use the timeouts of the [http.Server] to bound how long a request may take to
// arrive.
func (v *Verifier) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, refused := v.receive(w, r)
		if refused != nil {
			v.refuse(w, r, refused)
			return
		}
		delivery, ok := parseDelivery(body, r.Header)
		if !ok {
			v.refuse(w, r, &refusal{status: http.StatusBadRequest, answer: "not a JSON object", reason: "signed, but not a JSON object"})
			return
		}
		signed := r.WithContext(context.WithValue(r.Context(), contextKey{}, delivery))
		signed.Body, signed.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		signed.TransferEncoding = nil
		if v.ledger == nil {
			next.ServeHTTP(w, signed)
			return
		}
		v.once(w, signed, delivery, next)
	})
}

// refusal is a response, and a reason that only the log contains.
type refusal struct {
	status         int
	answer, reason string
}

func unauthorized(reason string) *refusal {
	return &refusal{status: http.StatusUnauthorized, answer: "invalid signature", reason: reason}
}

// receive reads and verifies a body. It refuses what it can without reading the body.
func (v *Verifier) receive(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	tooLarge := &refusal{status: http.StatusRequestEntityTooLarge, answer: "body too large", reason: "the body exceeds the limit"}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &refusal{status: http.StatusMethodNotAllowed, answer: "method not allowed", reason: "not a POST"}
	}
	signatures := r.Header[v.header]
	switch len(signatures) {
	case 1:
	case 0:
		return nil, unauthorized("there is no signature")
	default:
		return nil, unauthorized("there are several signatures")
	}
	mac, ok := parseSignature(signatures[0])
	if !ok {
		return nil, unauthorized("the signature is malformed")
	}
	if r.ContentLength > v.limit {
		return nil, tooLarge
	}
	var body bytes.Buffer
	// Memory is not allocated according to Content-Length, because the sender has not
	// proved anything yet.
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, v.limit)); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, tooLarge
		}
		return nil, &refusal{status: http.StatusBadRequest, answer: "body unreadable", reason: "the body is truncated"}
	}
	if v.verify(body.Bytes(), mac) != nil {
		return nil, unauthorized("the signature belongs to another body or another secret")
	}
	return body.Bytes(), nil
}

func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	if v.log != nil {
		v.log.LogAttrs(r.Context(), slog.LevelWarn, "agrenting: webhook refused",
			slog.Int("status", why.status), slog.String("reason", why.reason), slog.String("remote", r.RemoteAddr))
	}
	http.Error(w, why.answer, why.status)
}

// String returns a summary without the secrets.
func (v *Verifier) String() string {
	if v == nil || v.secrets.Load() == nil {
		return "webhook.Verifier()"
	}
	secrets := *v.secrets.Load()
	names := make([]string, len(secrets))
	for i, s := range secrets {
		names[i] = s.Fingerprint()
	}
	return "webhook.Verifier(" + v.header + ", " + strings.Join(names, ", ") + ")"
}

// GoString returns the same as String.
func (v *Verifier) GoString() string { return v.String() }

// Format writes what String returns, for every verb and flag.
func (v *Verifier) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }

// LogValue returns the same as String.
func (v *Verifier) LogValue() slog.Value { return slog.StringValue(v.String()) }

// MarshalText returns the same as String.
func (v *Verifier) MarshalText() ([]byte, error) { return []byte(v.String()), nil }
