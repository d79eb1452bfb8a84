package agrenting

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

	"github.com/agrenting/agrenting-go/internal/secret"
)

// ErrWebhookSignature says that a webhook is not signed with any of the secrets
// given: its signature is missing, malformed or another one. It never says
// which, and the answer to the sender does not either.
var ErrWebhookSignature = errors.New("agrenting: the webhook's signature is not valid")

// Headers of webhooks, as the platform's own client reads them. The platform's
// older pages write X-Webhook-Secret and give no algorithm.
const (
	headerWebhookSignature = "X-Webhook-Signature"
	headerWebhookEvent     = "X-Webhook-Event"
	headerWebhookTaskID    = "X-Webhook-Task-Id"
)

const (
	// DefaultWebhookBodyLimit bounds the body of a webhook in bytes, see
	// [WithWebhookBodyLimit].
	DefaultWebhookBodyLimit = 1 << 20
	// maxWebhookSecrets bounds what an unsigned request may cost: each secret is
	// a pass over its body.
	maxWebhookSecrets = 4
)

// WebhookVerifier tells webhooks of the platform from those of anybody else, by
// the HMAC-SHA256 of the body in X-Webhook-Signature. It is safe for concurrent
// use and holds its secrets as a [Credential] does.
//
// What a signature proves is that somebody who knows the secret wrote this body.
// It does not say when: the platform documents neither a timestamp nor a nonce,
// so whoever has seen a webhook can send it again, as often as they like. Nor are
// the headers signed, X-Webhook-Event among them. So take a webhook for a hint
// that there is something to see, and read the task with your own credential
// before you act on it:
//
//	var task Task
//	_, err := client.Do(ctx, http.MethodGet, "/api/v1/tasks/"+url.PathEscape(d.TaskID), nil, &task)
//
// [WithWebhookLedger] keeps the same body from being handled twice.
type WebhookVerifier struct {
	header  string
	limit   int64
	log     *slog.Logger // nil is silent
	ledger  WebhookLedger
	secrets atomic.Pointer[[]WebhookSecret]
}

// WebhookOption configures [NewWebhookVerifier].
type WebhookOption func(*WebhookVerifier) error

// WithWebhookHeader names the header that carries the signature; the default is
// X-Webhook-Signature. The platform's pages disagree on the name.
func WithWebhookHeader(name string) WebhookOption {
	return func(v *WebhookVerifier) error {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return optionError("WithWebhookHeader", "it is not the name of a header")
		}
		v.header = http.CanonicalHeaderKey(name)
		return nil
	}
}

// WithWebhookBodyLimit bounds the body in bytes; the default is
// [DefaultWebhookBodyLimit], 1 MiB. A larger one is answered 413 and not looked
// at. The whole body is kept in memory, for whoever asks: the limit is what a
// stranger can make the program hold for one request.
func WithWebhookBodyLimit(n int64) WebhookOption {
	return func(v *WebhookVerifier) error {
		if n <= 0 {
			return optionError("WithWebhookBodyLimit", "%d is no limit; it is a positive number of bytes", n)
		}
		v.limit = n
		return nil
	}
}

// WithWebhookLogger tells l, at level Warn, why a webhook was refused, which its
// sender is not told. Records have no body, no signature and no secret. The
// default, and nil, is silence.
func WithWebhookLogger(l *slog.Logger) WebhookOption {
	return func(v *WebhookVerifier) error {
		v.log = l
		return nil
	}
}

// WithWebhookLedger keeps a body that was handled once from being handled again;
// see [WebhookLedger]. Without it, every valid webhook is handed on.
func WithWebhookLedger(l WebhookLedger) WebhookOption {
	return func(v *WebhookVerifier) error {
		if l == nil {
			return optionError("WithWebhookLedger", "the ledger is nil")
		}
		v.ledger = l
		return nil
	}
}

// NewWebhookVerifier returns a verifier that accepts a signature under any of one
// to four secrets. Two at once are for changing over: give the new one and the
// old one, change the webhook on the platform, then drop the old one with
// [WebhookVerifier.SetSecrets].
func NewWebhookVerifier(secrets []WebhookSecret, opts ...WebhookOption) (*WebhookVerifier, error) {
	v := &WebhookVerifier{header: headerWebhookSignature, limit: DefaultWebhookBodyLimit}
	if err := v.SetSecrets(secrets...); err != nil {
		return nil, err
	}
	for _, opt := range opts {
		if opt == nil {
			return nil, optionError("NewWebhookVerifier", "an option is nil")
		}
		if err := opt(v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// SetSecrets replaces the secrets, for requests that arrive from now on. When it
// returns an error, the ones before stay in use.
func (v *WebhookVerifier) SetSecrets(secrets ...WebhookSecret) error {
	switch {
	case len(secrets) == 0:
		return optionError("SetSecrets", "there is no secret, so every webhook would be refused")
	case len(secrets) > maxWebhookSecrets:
		return optionError("SetSecrets", "there are %d secrets, and at most %d are taken", len(secrets), maxWebhookSecrets)
	}
	for _, s := range secrets {
		// With an empty key anybody can sign.
		if problem := secret.Problem(s.Reveal()); problem != "" {
			return fmt.Errorf("%w: a webhook secret %s", ErrInvalidCredential, problem)
		}
	}
	kept := append([]WebhookSecret(nil), secrets...)
	v.secrets.Store(&kept)
	return nil
}

// Verify reports whether signature is that of body, byte for byte as it arrived,
// under one of the secrets; if not, the error is [ErrWebhookSignature]. It is for
// those who do not receive webhooks by net/http.
//
// The platform's own client writes the 32 bytes of the HMAC in base64, and that
// is all that is known; no page of the platform gives the encoding. So either
// alphabet of base64 is read, padded or not, hex too, and "sha256=" before any of
// them. It is the bytes that are compared, so a spelling lets nothing in that
// another would keep out: only the holder of a secret can write any of them.
// Other algorithms, several signatures at once, and the bare secret in place of
// a signature are refused.
//
// The time it takes depends on the length of body and on the number of secrets,
// and neither on where a signature differs nor on which secret it belongs to.
func (v *WebhookVerifier) Verify(body []byte, signature string) error {
	mac, ok := parseWebhookSignature(signature)
	if !ok {
		return ErrWebhookSignature
	}
	return v.verify(body, mac)
}

func (v *WebhookVerifier) verify(body []byte, mac webhookMAC) error {
	found := false
	for _, s := range *v.secrets.Load() {
		h := hmac.New(sha256.New, []byte(s.Reveal()))
		_, _ = h.Write(body)
		// Every secret is tried, whatever came of the one before.
		found = hmac.Equal(h.Sum(nil), mac[:]) || found
	}
	if !found {
		return ErrWebhookSignature
	}
	return nil
}

type webhookMAC = [sha256.Size]byte

// webhookSignaturePrefix names the algorithm where senders name it. It cannot be
// the beginning of the MAC itself: there is no = within base64.
const webhookSignaturePrefix = "sha256="

// parseWebhookSignature reads a MAC in any of the spellings of Verify. They differ
// in length, so that none is taken for another.
func parseWebhookSignature(text string) (mac webhookMAC, ok bool) {
	text = strings.Trim(text, " \t")
	if p := len(webhookSignaturePrefix); len(text) > p && strings.EqualFold(text[:p], webhookSignaturePrefix) {
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
	return webhookMAC(raw), true
}

// Handler returns a handler that hands valid webhooks to next and answers all
// others itself:
//
//   - 405, with Allow, to anything but POST;
//   - 401 to a signature that is missing, malformed, repeated, or not that of the
//     body under any of the secrets, always in the same words;
//   - 413 to a body beyond the limit;
//   - 400 to a body that breaks off, or that is signed but no JSON object;
//   - 200 to one that was handled before, and 503 with Retry-After to one that is
//     being handled, or when the ledger fails, with [WithWebhookLedger].
//
// Next finds the body in the request again, byte for byte, and the
// [WebhookDelivery] in its context, by [WebhookFromContext]. What next answers
// goes to the platform, which tries a webhook again that was not answered with
// success; its schedule is not documented. So answer soon, and do the work after.
//
// Bound how long a request may take to arrive by the timeouts of the
// [http.Server].
func (v *WebhookVerifier) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, refusal := v.receive(w, r)
		if refusal != nil {
			v.refuse(w, r, refusal)
			return
		}
		delivery, ok := parseWebhookDelivery(body, r.Header)
		if !ok {
			v.refuse(w, r, &webhookRefusal{status: http.StatusBadRequest, answer: "not a JSON object", reason: "signed, but not a JSON object"})
			return
		}
		signed := r.WithContext(context.WithValue(r.Context(), webhookContextKey{}, delivery))
		signed.Body, signed.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		signed.TransferEncoding = nil
		if v.ledger == nil {
			next.ServeHTTP(w, signed)
			return
		}
		v.once(w, signed, delivery, next)
	})
}

// webhookRefusal is an answer, and a reason that only the log gets.
type webhookRefusal struct {
	status         int
	answer, reason string
}

func unauthorizedWebhook(reason string) *webhookRefusal {
	return &webhookRefusal{status: http.StatusUnauthorized, answer: "invalid signature", reason: reason}
}

// receive reads and verifies a body. What can be refused unread is.
func (v *WebhookVerifier) receive(w http.ResponseWriter, r *http.Request) ([]byte, *webhookRefusal) {
	tooLarge := &webhookRefusal{status: http.StatusRequestEntityTooLarge, answer: "body too large", reason: "the body is beyond the limit"}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &webhookRefusal{status: http.StatusMethodNotAllowed, answer: "method not allowed", reason: "not a POST"}
	}
	signatures := r.Header[v.header]
	switch len(signatures) {
	case 1:
	case 0:
		return nil, unauthorizedWebhook("there is no signature")
	default:
		return nil, unauthorizedWebhook("there are several signatures")
	}
	mac, ok := parseWebhookSignature(signatures[0])
	if !ok {
		return nil, unauthorizedWebhook("the signature is malformed")
	}
	if r.ContentLength > v.limit {
		return nil, tooLarge
	}
	var body bytes.Buffer
	// Not at once what Content-Length promises: whoever sent it has proved nothing yet.
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, v.limit)); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, tooLarge
		}
		return nil, &webhookRefusal{status: http.StatusBadRequest, answer: "body unreadable", reason: "the body breaks off"}
	}
	if v.verify(body.Bytes(), mac) != nil {
		return nil, unauthorizedWebhook("the signature belongs to another body or another secret")
	}
	return body.Bytes(), nil
}

func (v *WebhookVerifier) refuse(w http.ResponseWriter, r *http.Request, why *webhookRefusal) {
	if v.log != nil {
		v.log.LogAttrs(r.Context(), slog.LevelWarn, "agrenting: webhook refused",
			slog.Int("status", why.status), slog.String("reason", why.reason), slog.String("remote", r.RemoteAddr))
	}
	http.Error(w, why.answer, why.status)
}

// String sums the verifier up, without its secrets.
func (v *WebhookVerifier) String() string {
	if v == nil || v.secrets.Load() == nil {
		return "agrenting.WebhookVerifier()"
	}
	secrets := *v.secrets.Load()
	names := make([]string, len(secrets))
	for i, s := range secrets {
		names[i] = s.Fingerprint()
	}
	return "agrenting.WebhookVerifier(" + v.header + ", " + strings.Join(names, ", ") + ")"
}

// GoString returns what String returns.
func (v *WebhookVerifier) GoString() string { return v.String() }

// Format writes what String returns, whatever the verb and its flags.
func (v *WebhookVerifier) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, v.String()) }

// LogValue returns what String returns.
func (v *WebhookVerifier) LogValue() slog.Value { return slog.StringValue(v.String()) }

// MarshalText returns what String returns.
func (v *WebhookVerifier) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// A WebhookSecret signs the webhooks of one registration: the platform shows it
// once when a webhook is registered, or takes the caller's. It prints, logs and
// encodes as its fingerprint; only [WebhookSecret.Reveal] gives it. It is
// immutable and safe for concurrent use. The zero value is none.
type WebhookSecret struct{ text secret.Text }

// ParseWebhookSecret makes a WebhookSecret of text; white space around it is
// dropped, such as the newline at the end of a file. The characters themselves
// are the key of the HMAC, and are not decoded. The error is an
// [ErrInvalidCredential], reports what [ParseCredential] does, and shows nothing
// of the text.
func ParseWebhookSecret(text string) (WebhookSecret, error) {
	text = strings.TrimSpace(text)
	if problem := secret.Problem(text); problem != "" {
		return WebhookSecret{}, fmt.Errorf("%w: the webhook secret %s", ErrInvalidCredential, problem)
	}
	return WebhookSecret{text: secret.New(strings.Clone(text))}, nil
}

// IsZero reports whether s is the zero value, which signs nothing.
func (s WebhookSecret) IsZero() bool { return s.text.IsZero() }

// Reveal returns the secret, and is the only method that does.
func (s WebhookSecret) Reveal() string { return s.text.Reveal() }

// Fingerprint returns a short name of the secret like "sha256:1a2b3c4d5e", safe
// in logs; "" for the zero value.
func (s WebhookSecret) Fingerprint() string { return s.text.Fingerprint() }

// String returns a summary without the secret.
func (s WebhookSecret) String() string {
	if s.IsZero() {
		return "agrenting.WebhookSecret(none)"
	}
	return "agrenting.WebhookSecret(" + s.Fingerprint() + ")"
}

// GoString returns what String returns.
func (s WebhookSecret) GoString() string { return s.String() }

// Format writes what String returns, whatever the verb and its flags.
func (s WebhookSecret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what String returns.
func (s WebhookSecret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what String returns. It cannot be read back.
func (s WebhookSecret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

var errWebhookSecretDecode = errors.New("agrenting: a WebhookSecret cannot be decoded, because it is redacted when encoded: " +
	"decode the text and pass it to ParseWebhookSecret")

// UnmarshalText always fails: what MarshalText wrote is not the secret.
func (WebhookSecret) UnmarshalText([]byte) error { return errWebhookSecretDecode }

// GobEncode always fails, because gob is meant for reading back.
func (WebhookSecret) GobEncode() ([]byte, error) { return nil, errWebhookSecretDecode }

// GobDecode always fails, as UnmarshalText does.
func (WebhookSecret) GobDecode([]byte) error { return errWebhookSecretDecode }
