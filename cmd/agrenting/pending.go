package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go"
)

// issueFlags has the flags of a command that issues a secret.
type issueFlags struct {
	secretFlags

	IdempotencyKey string `placeholder:"KEY" help:"Repeat the call that was made with this idempotency key, such as a UUID: for 23 h, the platform returns the same secret. With --out, a repeated command finds the key itself."`
}

const (
	// pendingSuffix is added to the name of --out for the file that has the
	// idempotency key while the outcome of the call is not known.
	pendingSuffix = ".pending"
	pendingFormat = "agrenting pending call 1"
	maxPending    = 64 << 10

	// pendingFor is how long a call can be repeated. The platform keeps idempotency keys
	// for 24 h (platform documentation, "Idempotency"). One hour is reserved for clocks
	// that differ.
	pendingFor = 23 * time.Hour
)

// A pendingCall describes a call. It is written before the call is made.
type pendingCall struct {
	Format string `json:"format"`
	Note   string `json:"note"` // for people who find the file
	// Command, URL, Inputs, and Credential must be the same in a repetition.
	// Credential is a fingerprint, empty for an anonymous registration.
	Command    string          `json:"command"`
	URL        string          `json:"url"`
	Inputs     json.RawMessage `json:"inputs"`
	Credential string          `json:"credential,omitempty"`
	Key        string          `json:"idempotency_key"`
	Began      time.Time       `json:"began"`
}

// differs describes the difference between two calls, or returns "" if one repeats the other.
func (p *pendingCall) differs(q *pendingCall) string {
	var mine, other bytes.Buffer
	_ = json.Compact(&mine, p.Inputs) // both were decoded, or encoded here
	_ = json.Compact(&other, q.Inputs)
	switch {
	case p.Command != q.Command:
		return "it was made by the command " + p.Command
	case p.URL != q.URL:
		return "it is for the platform at " + p.URL
	case !bytes.Equal(mine.Bytes(), other.Bytes()):
		return "it was made with " + mine.String()
	case p.Credential != q.Credential:
		if p.Credential == "" {
			return "it was made without a credential"
		}
		return "it was made with the credential " + p.Credential
	default:
		return ""
	}
}

// An issuing is a call that issues a secret. It is made so that a repetition of the
// command gets the same secret if the response is lost.
type issuing struct {
	app     *app
	witness *witness
	path    string // of the file with the idempotency key; "" is none
	call    pendingCall
	chosen  bool // the user specified the idempotency key
	// repeated is set if an earlier run may have made the call.
	repeated bool

	what string // such as "the key"
	done string // such as "created"
	// check says how to find out an unknown outcome. undo says how to undo the call.
	check, undo string
}

// begin records the call before it is made, or finds the record of an earlier run. i has the
// texts; client makes the call.
func (i *issuing) begin(a *app, client *agrenting.Client, f issueFlags, command string, inputs any) error {
	encoded, err := json.Marshal(inputs)
	if err != nil {
		return err
	}
	i.app, i.witness, i.chosen = a, a.witness, f.IdempotencyKey != ""
	i.call = pendingCall{
		Format: pendingFormat, Command: command, URL: client.BaseURL(), Inputs: encoded, Key: f.IdempotencyKey,
		Began: time.Now().UTC().Truncate(time.Second),
		Note: "The outcome of this call is not known. The same command repeats it and gets the same secret. " +
			"Anyone who has the key below can get that secret, too.",
	}
	if i.call.Key == "" {
		i.call.Key = newUUID()
	}
	if client.Status().Source != "WithAnonymous" {
		cred, err := client.Credential(a.ctx)
		if err != nil {
			return err
		}
		i.call.Credential = cred.Fingerprint()
	}
	if f.Out == "" {
		return nil
	}
	i.path = f.Out + pendingSuffix
	return i.write(f.IdempotencyKey)
}

// write creates the file, or takes the idempotency key from an existing file. chosen is the key
// that the user specified.
func (i *issuing) write(chosen string) error {
	text, err := json.MarshalIndent(i.call, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(i.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // #nosec G304 -- beside --out
	if errors.Is(err, fs.ErrExist) {
		return i.resume(chosen)
	}
	if err == nil {
		_, err = f.Write(append(text, '\n'))
		if err == nil {
			err = f.Sync()
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			syncFolder(i.path)
			return nil
		}
		_ = os.Remove(i.path)
	}
	return failure(fileHint(err), "cannot write %s: %v; the platform was not called", i.path, cause(err))
}

// resume takes the idempotency key of an earlier run if that run made the same call.
func (i *issuing) resume(chosen string) error {
	before, err := readPending(i.path)
	if err != nil {
		return err
	}
	if why := before.differs(&i.call); why != "" {
		return usage("repeat that command; or "+i.check+", and then remove "+i.path,
			"%s records a call with an unknown outcome, and %s", i.path, visible(why))
	}
	if chosen != "" && chosen != before.Key {
		return usage("leave out "+i.flag(chosen), "%s has another idempotency key", i.path)
	}
	if age := time.Since(before.Began); age > pendingFor {
		return failure(i.check+": "+i.undo+", and remove "+i.path,
			"%s records a call with an unknown outcome that was made %s ago; such a call can be repeated for 23 h only",
			i.path, ago(age))
	}
	i.call, i.repeated = *before, true
	i.app.ui.note("an earlier run made this call at %s, and its outcome is unknown; it is repeated with the same idempotency key (%s)",
		when(i.call.Began), i.path)
	return nil
}

// readPending reads a file that write created.
func readPending(path string) (*pendingCall, error) {
	fail := func(why string) error {
		return usage("choose another --out, or remove the file if it is not needed", "%s exists, and %s", path, why)
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, failure(fileHint(err), "cannot read %s: %v", path, cause(err))
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its other end
		return nil, fail("it is not a regular file")
	}
	f, err := os.Open(path) // #nosec G304 -- beside --out
	if err != nil {
		return nil, failure(fileHint(err), "cannot read %s: %v", path, cause(err))
	}
	defer f.Close()
	opened, err := f.Stat()
	switch {
	case err != nil || !os.SameFile(info, opened):
		return nil, fail("it was replaced while it was opened")
	case !privateFile(opened):
		return nil, fail("another user may have written it")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPending))
	if err != nil {
		return nil, failure(fileHint(err), "cannot read %s: %v", path, cause(err))
	}
	var p pendingCall
	if json.Unmarshal(text, &p) != nil || p.Format != pendingFormat || p.Key == "" {
		return nil, fail("it does not describe a call of this version")
	}
	return &p, nil
}

// option returns the call option that makes the call repeatable.
func (i *issuing) option() agrenting.CallOption { return agrenting.CallIdempotencyKey(i.call.Key) }

// forget removes the file: the outcome is known.
func (i *issuing) forget() {
	if i.path != "" {
		_ = os.Remove(i.path) // a file that remains is refused or repeated, and both are harmless
	}
}

// failed returns the error of the call, with what is known about its outcome.
func (i *issuing) failed(err error) error {
	if !i.unknown(err) {
		i.forget()
		return err
	}
	e := *i.app.classify(err)
	e.msg += "; it is not known whether " + i.what + " was " + i.done
	remedy := i.repeat()
	if api, ok := errors.AsType[*agrenting.APIError](err); ok && api.Code == "IDEMPOTENCY_PENDING" {
		remedy = "the first call is still being processed: " + remedy
	}
	switch e.code {
	case codeRefused, codeCredential, codeLimited:
		e.hint = joinHints(e.hint, remedy)
	default:
		e.hint = remedy
	}
	e.unknown = true
	return &e
}

// unknown reports whether the call may have been carried out although it failed.
func (i *issuing) unknown(err error) bool {
	api, answered := errors.AsType[*agrenting.APIError](err)
	platform := answered && api.Code != "" && api.StatusCode >= http.StatusBadRequest && api.StatusCode < http.StatusInternalServerError
	idempotency := answered && strings.HasPrefix(api.Code, "IDEMPOTENCY_")
	switch {
	case platform && !idempotency && errors.Is(err, agrenting.ErrValidation):
		return false // the platform does not validate a repetition of a call again if it was carried out
	case i.repeated, idempotency:
		return true
	case platform:
		return i.witness.lost()
	default:
		return i.witness.sent()
	}
}

// repeat returns how to repeat a call with an unknown outcome.
func (i *issuing) repeat() string {
	switch {
	case i.path != "":
		return "repeat the same command within 23 h: the platform then returns the same secret, by the idempotency key in " + i.path +
			"; if it cannot be repeated, " + i.check + ": " + i.undo + ", and remove " + i.path
	case i.call.Credential == "" && !i.chosen: // the idempotency key alone is enough to get the secret
		return i.check + ": " + i.undo + "; with --out FILE, the command could be repeated"
	default:
		return "repeat it with " + i.flag(i.call.Key) + " within 23 h: the platform then returns the same secret; if it cannot be repeated, " +
			i.check + ": " + i.undo
	}
}

// flag returns how the user passes an idempotency key.
func (i *issuing) flag(key string) string {
	if i.call.Command == requestCommand {
		return "-H '" + idempotencyHeader + ": " + key + "'"
	}
	return "--idempotency-key " + key
}

// A witness records whether calls may have been carried out, and the body of the last response
// to one. It is the base transport of the client.
type witness struct {
	base http.RoundTripper

	written, unanswered atomic.Bool
	body                atomic.Pointer[bytes.Buffer]
}

// RoundTrip implements [http.RoundTripper].
func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost {
		return w.base.RoundTrip(req)
	}
	var written atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { written.Store(true); w.written.Store(true) },
	})
	resp, err := w.base.RoundTrip(req.WithContext(ctx))
	if (err != nil && written.Load()) || (err == nil && uncertain(resp.StatusCode)) {
		w.unanswered.Store(true)
	}
	if err == nil {
		body := new(bytes.Buffer)
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(resp.Body, body), resp.Body}
		w.body.Store(body)
	}
	return resp, err
}

// response returns the body of the last response, as far as it was read. It is for callers that
// have the result of the call.
func (w *witness) response() []byte { return w.body.Load().Bytes() }

// uncertain reports whether a status leaves the outcome of a call open.
func uncertain(status int) bool {
	return status >= http.StatusInternalServerError || status == http.StatusRequestTimeout
}

// sent reports whether the platform may have received a call.
func (w *witness) sent() bool { return w.written.Load() }

// lost reports whether a call without a response may have been carried out.
func (w *witness) lost() bool { return w.unanswered.Load() }

// watched adds a witness to the clients of this run.
func (a *app) watched() { a.witness = &witness{base: agrenting.NewBaseTransport()} }

// newUUID returns a random UUID, version 4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// syncFolder makes a new or replaced file durable, on systems that support it.
func syncFolder(path string) {
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}

// keep writes a text with the secret to the place that the flags name. If that fails, it keeps
// the text elsewhere and reports what was created, where the secret is, and how to undo the call.
func (i *issuing) keep(s *sink, made, undo, text string) error {
	left, err := s.write(text)
	if err == nil {
		i.forget()
		return nil
	}
	msg := made + ", but " + s.flags.Out + " could not be written: " + cause(err).Error()
	where := cmp.Or(i.app.elsewhere(s, left, strings.TrimSuffix(text, "\n")), "could not be kept elsewhere")
	hint := fileHint(err)
	if _, lerr := os.Lstat(i.path); lerr == nil { // the whole folder may be missing
		hint += ", and repeat the same command within 23 h: the platform then returns the same secret"
	}
	return &cliError{code: codeFailure, kind: "file", msg: msg + "; its secret " + where, hint: hint + "; or " + undo, err: err}
}

// elsewhere saves the only copy of a secret and returns where it is, such as "is in FILE". It
// returns "" if that failed. left is a temporary file that already has the secret.
func (a *app) elsewhere(s *sink, left, secret string) string {
	if left != "" {
		return "is in " + left
	}
	if path, err := rescued(a.Store, secret); err == nil {
		return "is in " + path
	}
	if f, err := os.CreateTemp("", "agrenting-rescued-*"); err == nil { // 0600
		if _, err := become(f, f.Name(), secret+"\n"); err == nil {
			return "is in " + f.Name()
		}
	}
	switch {
	case s.flags.Show:
		a.ui.line("%s", secret)
		if a.unwritten(true) != nil {
			return ""
		}
		return "was printed"
	case a.ui.onTerminal():
		fmt.Fprintln(a.err, secret)
		return "was printed to this terminal, once"
	default:
		return ""
	}
}

// strays notes keys that earlier attempts of a repeated call created, on a platform that does
// not return the first response again. made yields the name, ID, and time of creation of each
// key or token.
func (i *issuing) strays(own, name string, made func(ctx context.Context, yield func(id, name string, created time.Time))) {
	if !i.repeated || own == "" {
		return
	}
	ctx, cancel := context.WithTimeout(i.app.ctx, 5*time.Second)
	defer cancel()
	var ids []string
	made(ctx, func(id, n string, created time.Time) {
		// The clocks may differ.
		if id != own && n == name && !created.IsZero() && created.After(i.call.Began.Add(-time.Minute)) {
			ids = append(ids, visible(id))
		}
	})
	if len(ids) > 0 {
		i.app.ui.note("others with the same name were created since the first attempt: %s; revoke those that no program uses", strings.Join(ids, ", "))
	}
}

// rescue saves the platform's response if the platform issued a secret that was not found in
// it. Otherwise, it returns what is known about the outcome.
func (i *issuing) rescue(s *sink, err error) error {
	w, ok := errors.AsType[*agrenting.IssuedSecretError](err)
	if !ok {
		return i.failed(err)
	}
	body := w.RawResponse()
	if !conclusive(body) {
		return i.failed(i.app.setAside(s, body, w.Err))
	}
	if err := i.keep(s, "the platform issued a secret in an unknown field", i.undo, string(body)+"\n"); err != nil {
		return err
	}
	if err := s.print(i.app, string(body)); err != nil {
		return err
	}
	return unnamed(err, s.place())
}

// setAside keeps a response that is not conclusive: if it is JSON, it may have a secret
// nevertheless. It returns err with the place.
func (a *app) setAside(s *sink, body []byte, err error) error {
	if len(body) <= len("{}") || !json.Valid(body) {
		return err
	}
	if where := a.elsewhere(s, "", string(body)); where != "" {
		return fmt.Errorf("%w; the response %s", err, where)
	}
	return err
}

// conclusive reports whether the body of a response shows that the platform has carried out a
// call that issues a secret. Any other response may come from a gateway.
func conclusive(body []byte) bool {
	data, beside := dataOf(body)
	return data != nil || beside
}

// dataOf returns the data in the platform's envelope, or nil if there is none. beside reports
// whether a secret may be beside the data.
func dataOf(body []byte) (data json.RawMessage, beside bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(bytes.TrimPrefix(body, []byte("\ufeff")), &members) != nil || members["data"] == nil {
		return nil, false
	}
	for name, value := range members {
		switch name {
		case "data", "meta", "errors":
		default:
			beside = beside || mayHold(value)
		}
	}
	if data = members["data"]; string(data) == "null" {
		data = nil
	}
	return data, beside
}

// minSecret is shorter than any secret, in bytes.
const minSecret = 16

// mayHold reports whether a member of a response may hold a secret: a long word, or something
// with members.
func mayHold(value json.RawMessage) bool {
	var text string
	if json.Unmarshal(value, &text) != nil {
		return len(value) > len("{}") && (value[0] == '{' || value[0] == '[')
	}
	return len(text) >= minSecret && len(strings.Fields(text)) == 1
}
