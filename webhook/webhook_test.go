package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/ascii"
)

const (
	hookSecret = "whsec_not_a_real_one"
	hookBody   = `{"task_id":"t-1","status":"completed"}`
	// What "openssl dgst -sha256 -hmac" makes of the two.
	hookBase64 = "l/ANJ6PUgDolQXYpHC+TES3enShlEIJ6PUF5Ms/z23A="
)

func hookSecrets(tb testing.TB, texts ...string) []Secret {
	tb.Helper()
	out := make([]Secret, len(texts))
	for i, text := range texts {
		var err error
		out[i], err = ParseSecret(text)
		require.NoError(tb, err)
	}
	return out
}

func verifier(t *testing.T, opts ...Option) *Verifier {
	t.Helper()
	v, err := NewVerifier(hookSecrets(t, hookSecret), opts...)
	require.NoError(t, err)
	return v
}

// advance lets virtual time pass.
func advance(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // callers are in a bubble

// hook is a signed request as a server sees it.
func hook(body string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(body))
	r.Header.Set("X-Webhook-Signature", agrentingtest.SignWebhook(hookSecret, []byte(body)))
	for _, f := range change {
		f(r)
	}
	return r
}

// receive sends a request through the verifier and reports whether it arrived.
func receive(v *Verifier, r *http.Request) (*httptest.ResponseRecorder, *Delivery) {
	var got *Delivery
	w := httptest.NewRecorder()
	v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = FromContext(r.Context())
		w.WriteHeader(http.StatusAccepted)
	})).ServeHTTP(w, r)
	return w, got
}

func TestSignatureMatchesOpenSSL(t *testing.T) {
	t.Parallel()
	// By the command line of OpenSSL, so that the SDK and its test kit cannot be
	// wrong together.
	require.NoError(t, verifier(t).Verify([]byte(hookBody), hookBase64))
	assert.Equal(t, hookBase64, agrentingtest.SignWebhook(hookSecret, []byte(hookBody)))
}

func TestVerifyAcceptsEverySpelling(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	// A body whose signature has both characters in which the alphabets differ.
	var body string
	var mac []byte
	for i := 0; ; i++ {
		body = `{"n":` + strconv.Itoa(i) + `}`
		text := agrentingtest.SignWebhook(hookSecret, []byte(body))
		if strings.Contains(text, "+") && strings.Contains(text, "/") {
			var err error
			mac, err = base64.StdEncoding.DecodeString(text)
			require.NoError(t, err)
			break
		}
	}
	std, urlSafe, digits := base64.StdEncoding.EncodeToString(mac), base64.URLEncoding.EncodeToString(mac), hex.EncodeToString(mac)
	last := func(text, with string) string { return text[:len(text)-1] + with }
	for name, c := range map[string]struct {
		signature string
		valid     bool
	}{
		"base64":                      {std, true},
		"base64 without padding":      {strings.TrimRight(std, "="), true},
		"base64 of URLs":              {urlSafe, true},
		"of URLs, without padding":    {strings.TrimRight(urlSafe, "="), true},
		"hex":                         {digits, true},
		"hex in capitals":             {strings.ToUpper(digits), true},
		"sha256= and base64":          {"sha256=" + std, true},
		"sha256= and hex":             {"sha256=" + digits, true},
		"SHA256= and hex":             {"SHA256=" + digits, true},
		"white space around":          {" \t" + std + " ", true},
		"nothing":                     {"", false},
		"the prefix alone":            {"sha256=", false},
		"the prefix twice":            {"sha256=sha256=" + digits, false},
		"another algorithm":           {"sha1=" + digits, false},
		"no algorithm":                {"none", false},
		"the secret":                  {hookSecret, false},
		"two, with a comma":           {std + "," + std, false},
		"both alphabets":              {strings.Replace(std, "+", "-", 1), false},
		"bits beyond the end":         {last(strings.TrimRight(std, "="), string(std[len(std)-2]+1)), false},
		"cut off":                     {std[:40], false},
		"doubled":                     {std + std, false},
		"a line break within":         {std[:20] + "\n" + std[21:], false},
		"a line break in addition":    {std[:20] + "\n" + std[20:43], false},
		"hex with a letter too many":  {last(digits, "g"), false},
		"too much padding":            {std[:42] + "==", false},
		"another bit":                 {base64.StdEncoding.EncodeToString(append([]byte{mac[0] ^ 1}, mac[1:]...)), false},
		"the last bit":                {hex.EncodeToString(append(bytes.Clone(mac[:31]), mac[31]^1)), false},
		"all zero":                    {strings.Repeat("0", 64), false},
		"a signature of another body": {agrentingtest.SignWebhook(hookSecret, []byte(hookBody)), false},
		"of another secret":           {agrentingtest.SignWebhook(hookSecret+"x", []byte(body)), false},
		"of no secret":                {agrentingtest.SignWebhook("", []byte(body)), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := v.Verify([]byte(body), c.signature)
			if c.valid {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, ErrSignature)
				assert.Equal(t, ErrSignature.Error(), err.Error(), "the reason is not given")
			}
			w, got := receive(v, hook(body, func(r *http.Request) { r.Header.Set("X-Webhook-Signature", c.signature) }))
			assert.Equal(t, c.valid, got != nil)
			assert.Equal(t, c.valid, w.Code == http.StatusAccepted)
		})
	}
}

func TestHandlerRefusesInvalidWebhooks(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	chunked := func(r *http.Request) { r.ContentLength = -1 }
	large := `{"x":"` + strings.Repeat("x", 100) + `"}`
	for name, c := range map[string]struct {
		request *http.Request
		status  int
		answer  string
		reason  string
	}{
		"no signature":   {hook(hookBody, func(r *http.Request) { r.Header.Del("X-Webhook-Signature") }), 401, "invalid signature", "no signature"},
		"malformed":      {hook(hookBody, header("X-Webhook-Signature", "?")), 401, "invalid signature", "malformed"},
		"other body":     {hook(hookBody+" ", header("X-Webhook-Signature", hookBase64)), 401, "invalid signature", "another body"},
		"several":        {hook(hookBody, func(r *http.Request) { r.Header.Add("X-Webhook-Signature", hookBase64) }), 401, "invalid signature", "several"},
		"the old header": {hook(hookBody, func(r *http.Request) { r.Header = http.Header{"X-Webhook-Secret": {hookSecret}} }), 401, "invalid signature", "no signature"},
		"announced size": {hook(large), 413, "body too large", "exceeds"},
		"unknown size":   {hook(large, chunked), 413, "body too large", "exceeds"},
		"GET":            {hook(hookBody, func(r *http.Request) { r.Method = http.MethodGet }), 405, "method not allowed", "not a POST"},
		"HEAD":           {hook(hookBody, func(r *http.Request) { r.Method = http.MethodHead }), 405, "method not allowed", "not a POST"},
		"PUT":            {hook(hookBody, func(r *http.Request) { r.Method = http.MethodPut }), 405, "method not allowed", "not a POST"},
		"broken off": {hook(hookBody, func(r *http.Request) {
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(hookBody[:9]), iotest.ErrReader(io.ErrUnexpectedEOF)))
		}), 400, "body unreadable", "truncated"},
		"not JSON":        {hook("task_id=t-1"), 400, "not a JSON object", "not a JSON"},
		"empty":           {hook(""), 400, "not a JSON object", "not a JSON"},
		"an array":        {hook("[]"), 400, "not a JSON object", "not a JSON"},
		"null":            {hook("null"), 400, "not a JSON object", "not a JSON"},
		"two objects":     {hook("{}{}"), 400, "not a JSON object", "not a JSON"},
		"JSON, cut short": {hook(hookBody[:20]), 400, "not a JSON object", "not a JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			v := verifier(t, WithBodyLimit(64), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
			w, got := receive(v, c.request)
			assert.Nil(t, got, "the handler was asked")
			assert.Equal(t, c.status, w.Code)
			assert.Equal(t, c.answer+"\n", w.Body.String(), "the sender learns no more than this")
			if c.status == http.StatusMethodNotAllowed {
				assert.Equal(t, "POST", w.Header().Get("Allow"))
			}
			assert.Contains(t, log.String(), c.reason, "the operator learns why")
			assert.NotContains(t, log.String(), hookSecret)
			assert.NotContains(t, log.String(), hookBase64)
			assert.NotContains(t, log.String(), "t-1")
			_, again := receive(verifier(t), hook(hookBody))
			assert.NotNil(t, again, "the test's own requests are valid")
		})
	}
}

func TestHandlerDoesNotReadUnsignedBody(t *testing.T) {
	t.Parallel()
	for name, signature := range map[string]string{"none": "", "malformed": "secret"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := receive(verifier(t), hook(hookBody, func(r *http.Request) {
				r.Header.Set("X-Webhook-Signature", signature)
				r.Body = io.NopCloser(iotest.ErrReader(errors.New("it was read")))
			}))
			assert.Equal(t, http.StatusUnauthorized, w.Code)
		})
	}
}

func TestHandlerDoesNotReadTooLargeBody(t *testing.T) {
	t.Parallel()
	w, _ := receive(verifier(t, WithBodyLimit(64)), hook(hookBody, func(r *http.Request) {
		r.ContentLength, r.Body = 65, io.NopCloser(iotest.ErrReader(errors.New("it was read")))
	}))
	assert.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
}

func TestHandlerRestoresTheBody(t *testing.T) {
	t.Parallel()
	body := `{ "task_id" : "t-1",` + "\n" + ` "status":"completed", "more": [1, 2] }`
	original := hook(body, func(r *http.Request) {
		r.ContentLength, r.TransferEncoding = -1, []string{"chunked"}
	})
	var read []byte
	verifier(t).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var err error
		read, err = io.ReadAll(r.Body)
		assert.NoError(t, err)
		assert.EqualValues(t, len(body), r.ContentLength)
		assert.Empty(t, r.TransferEncoding)
		d, ok := FromContext(r.Context())
		assert.True(t, ok)
		assert.Equal(t, body, string(d.Body))
	})).ServeHTTP(httptest.NewRecorder(), original)
	assert.Equal(t, body, string(read))
	assert.EqualValues(t, -1, original.ContentLength, "the server's own request is not changed")
	assert.Equal(t, []string{"chunked"}, original.TransferEncoding)
	_, ok := FromContext(t.Context())
	assert.False(t, ok)
}

func TestBodyLimitIsInclusive(t *testing.T) {
	t.Parallel()
	for extra, status := range map[int]int{0: http.StatusAccepted, -1: http.StatusRequestEntityTooLarge} {
		w, _ := receive(verifier(t, WithBodyLimit(int64(len(hookBody)+extra))), hook(hookBody))
		assert.Equal(t, status, w.Code)
	}
	w, _ := receive(verifier(t), hook(`{"x":"`+strings.Repeat("x", 1<<20-8)+`"}`))
	assert.Equal(t, http.StatusAccepted, w.Code, "1 MiB by default")
	w, _ = receive(verifier(t), hook(`{"x":"`+strings.Repeat("x", 1<<20-7)+`"}`))
	assert.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
}

func TestSetSecretsReplacesSecrets(t *testing.T) {
	t.Parallel()
	sign := func(secret string) string { return agrentingtest.SignWebhook(secret, []byte(hookBody)) }
	v, err := NewVerifier(hookSecrets(t, "old-secret-0000001"))
	require.NoError(t, err)
	body := []byte(hookBody)
	require.NoError(t, v.Verify(body, sign("old-secret-0000001")))
	require.ErrorIs(t, v.Verify(body, sign("new-secret-0000002")), ErrSignature)

	require.NoError(t, v.SetSecrets(hookSecrets(t, "new-secret-0000002", "old-secret-0000001")...))
	require.NoError(t, v.Verify(body, sign("old-secret-0000001")))
	require.NoError(t, v.Verify(body, sign("new-secret-0000002")))

	require.NoError(t, v.SetSecrets(hookSecrets(t, "new-secret-0000002")...))
	require.ErrorIs(t, v.Verify(body, sign("old-secret-0000001")), ErrSignature)
	require.NoError(t, v.Verify(body, sign("new-secret-0000002")))

	require.ErrorIs(t, v.SetSecrets(), ErrInvalidOption)
	require.ErrorIs(t, v.SetSecrets(Secret{}), ErrInvalidSecret, "anybody could sign")
	require.ErrorIs(t, v.SetSecrets(hookSecrets(t, strings.Fields(strings.Repeat(hookSecret+" ", 5))...)...), ErrInvalidOption)
	require.NoError(t, v.Verify(body, sign("new-secret-0000002")), "the ones before stay in use")
}

func TestNewVerifierCopiesSecrets(t *testing.T) {
	t.Parallel()
	secrets := hookSecrets(t, hookSecret)
	v, err := NewVerifier(secrets)
	require.NoError(t, err)
	secrets[0] = hookSecrets(t, "another-secret-01")[0]
	require.NoError(t, v.Verify([]byte(hookBody), hookBase64))
}

func TestOptionsAreValidated(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Option{
		"nil": nil, "no header": WithHeader(""), "bad header": WithHeader("X Signature"), "colon": WithHeader("X:"),
		"no limit": WithBodyLimit(0), "negative limit": WithBodyLimit(-1), "no ledger": WithLedger(nil),
	} {
		_, err := NewVerifier(hookSecrets(t, hookSecret), opt)
		require.ErrorIs(t, err, ErrInvalidOption, name)
	}
	_, err := NewVerifier(nil)
	require.ErrorIs(t, err, ErrInvalidOption)
	for _, text := range []string{"", " \n", "two words", `"quoted"`, "monkeys2026", "fifteen-letters", strings.Repeat("x", 5000)} {
		_, err := ParseSecret(text)
		require.ErrorIs(t, err, ErrInvalidSecret)
		if len(text) > 8 {
			assert.NotContains(t, err.Error(), text[1:9])
		}
	}
	_, err = ParseSecret("fifteen-letters")
	require.ErrorIs(t, err, ErrInvalidSecret)
	require.EqualError(t, err, "agrenting: invalid webhook secret: it has 15 bytes, and at least 16 random ones are needed; "+
		"make one with: openssl rand -hex 32")
	s, err := ParseSecret(" " + hookSecret + "\n")
	require.NoError(t, err)
	assert.Equal(t, hookSecret, s.Reveal())
}

func TestWithHeaderNamesTheHeader(t *testing.T) {
	t.Parallel()
	v := verifier(t, WithHeader("x-agrenting-signature"))
	_, got := receive(v, hook(hookBody))
	assert.Nil(t, got)
	_, got = receive(v, hook(hookBody, func(r *http.Request) { r.Header.Set("X-Agrenting-Signature", hookBase64) }))
	assert.NotNil(t, got)
}

func TestDeliveryIgnoresMalformedMembers(t *testing.T) {
	t.Parallel()
	percent := func(f float64) *float64 { return &f }
	at := time.Date(2026, 11, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		body string
		want Delivery
	}{
		"all there is": {
			`{"task_id":"t-1","status":"completed","output":{"text":"done"},"error_reason":"none","progress_percent":12.5,` +
				`"progress_message":"so far","completed_at":"2026-11-02T03:04:05Z","created_at":1793588645,"new":{"a":1}}`,
			Delivery{
				TaskID: "t-1", TaskIDSigned: true, Status: "completed", Output: json.RawMessage(`{"text":"done"}`), ErrorReason: "none",
				ProgressPercent: percent(12.5), ProgressMessage: "so far", Completed: at, Created: time.Unix(1793588645, 0),
			},
		},
		"nothing":       {`{}`, Delivery{TaskID: "t-header"}},
		"nulls":         {`{"task_id":null,"status":null,"output":null,"progress_percent":null,"created_at":null}`, Delivery{TaskID: "t-header"}},
		"other types":   {`{"task_id":7,"status":[],"progress_percent":"much","progress_message":{},"created_at":"soon","error_reason":1}`, Delivery{TaskID: "t-header"}},
		"output a text": {`{"task_id":"t-1","output":"done"}`, Delivery{TaskID: "t-1", TaskIDSigned: true, Output: json.RawMessage(`"done"`)}},
		"an envelope":   {`{"data":{"task_id":"t-1","status":"failed"}}`, Delivery{TaskID: "t-1", TaskIDSigned: true, Status: "failed"}},
		"both":          {`{"task_id":"t-1","data":{"task_id":"t-2"}}`, Delivery{TaskID: "t-1", TaskIDSigned: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, got := receive(verifier(t), hook(c.body, func(r *http.Request) {
				r.Header.Set("X-Webhook-Event", "task.completed")
				r.Header.Set("X-Webhook-Task-Id", "t-header")
			}))
			require.NotNil(t, got)
			c.want.Event, c.want.Body = "task.completed", []byte(c.body)
			assert.Equal(t, c.want, *got)
		})
	}
}

func TestSignedTaskIDWinsOverHeader(t *testing.T) {
	t.Parallel()
	_, got := receive(verifier(t), hook(hookBody, func(r *http.Request) { r.Header.Set("X-Webhook-Task-Id", "t-2") }))
	require.NotNil(t, got)
	assert.Equal(t, "t-1", got.TaskID)
	assert.True(t, got.TaskIDSigned)
}

func TestLedgerRepeatsOnlyFailedWebhooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		answer := http.StatusInternalServerError
		h := verifier(t, WithLedger(NewLedger(time.Hour, 10))).Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				switch answer {
				case 0: // nothing is written
				case -1:
					panic(http.ErrAbortHandler)
				default:
					w.WriteHeader(http.StatusEarlyHints)
					w.WriteHeader(answer)
					assert.NoError(t, http.NewResponseController(w).Flush())
				}
			}))
		send := func(body string) (code int) {
			w := httptest.NewRecorder()
			defer func() { _ = recover(); code = w.Code }()
			h.ServeHTTP(w, hook(body))
			return w.Code
		}
		send(hookBody)
		send(hookBody)
		assert.EqualValues(t, 2, calls.Load(), "what failed comes again")
		answer = -1
		send(hookBody)
		send(hookBody)
		assert.EqualValues(t, 4, calls.Load(), "and what panicked")
		answer = 0
		send(hookBody)
		assert.EqualValues(t, 5, calls.Load())
		assert.Equal(t, http.StatusOK, send(hookBody))
		assert.EqualValues(t, 5, calls.Load(), "what succeeded does not")
		answer = http.StatusNoContent
		send(`{"task_id":"t-2"}`)
		send(`{"task_id":"t-2"}`)
		assert.EqualValues(t, 6, calls.Load())
		advance(time.Hour)
		send(hookBody)
		assert.EqualValues(t, 7, calls.Load(), "only as long as the ledger remembers")
	})
}

func TestLedgerIgnoresEventAndSecret(t *testing.T) {
	t.Parallel()
	v, err := NewVerifier(hookSecrets(t, hookSecret, "another-secret-000001"), WithLedger(NewLedger(time.Hour, 10)))
	require.NoError(t, err)
	_, first := receive(v, hook(hookBody))
	assert.NotNil(t, first)
	_, second := receive(v, hook(hookBody, func(r *http.Request) {
		r.Header.Set("X-Webhook-Event", "task.failed")
		r.Header.Set("X-Webhook-Signature", agrentingtest.SignWebhook("another-secret-000001", []byte(hookBody)))
	}))
	assert.Nil(t, second)
}

func TestUnsignedWebhookLeavesNoEntry(t *testing.T) {
	t.Parallel()
	v := verifier(t, WithLedger(NewLedger(time.Hour, 10)))
	w, _ := receive(v, hook(hookBody, func(r *http.Request) { r.Header.Set("X-Webhook-Signature", strings.Repeat("0", 64)) }))
	assert.Equal(t, http.StatusUnauthorized, w.Code)
	_, got := receive(v, hook(hookBody))
	assert.NotNil(t, got, "else anybody could keep the real one out")
}

func TestBusyWebhookIsAnswered503(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := verifier(t, WithLedger(NewLedger(time.Hour, 10)))
		entered, leave := make(chan struct{}), make(chan struct{})
		h := v.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(entered)
			<-leave
		}))
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.ServeHTTP(httptest.NewRecorder(), hook(hookBody))
		}()
		<-entered
		w := httptest.NewRecorder()
		h.ServeHTTP(w, hook(hookBody))
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		assert.NotEmpty(t, w.Header().Get("Retry-After"))
		close(leave)
		<-done
		w = httptest.NewRecorder()
		h.ServeHTTP(w, hook(hookBody))
		assert.Equal(t, http.StatusOK, w.Code)
	})
}

// brokenLedger fails.
type brokenLedger struct{ begin, end error }

func (l brokenLedger) Begin(context.Context, string) (State, error) {
	return StateNew, l.begin
}

func (l brokenLedger) End(ctx context.Context, _ string, _ bool) error {
	return errors.Join(ctx.Err(), l.end)
}

func TestLedgerFailureLosesNoWebhook(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := WithLogger(slog.New(slog.NewTextHandler(&log, nil)))
	w, got := receive(verifier(t, logger, WithLedger(brokenLedger{begin: errors.New("no database")})), hook(hookBody))
	assert.Nil(t, got)
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.NotContains(t, w.Body.String(), "database")
	assert.Contains(t, log.String(), "no database")

	log.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the sender has gone, but the ledger is told
	w, got = receive(verifier(t, logger, WithLedger(brokenLedger{end: errors.New("disk full")})), hook(hookBody).WithContext(ctx))
	assert.NotNil(t, got)
	assert.Equal(t, http.StatusAccepted, w.Code)
	assert.Contains(t, log.String(), "disk full")
	assert.NotContains(t, log.String(), context.Canceled.Error())
}

func TestMemoryLedgerIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ledger := NewLedger(time.Minute, 3)
		m, ok := ledger.(*memoryLedger)
		require.True(t, ok)
		begin := func(id string) State {
			t.Helper()
			s, err := ledger.Begin(t.Context(), id)
			require.NoError(t, err)
			return s
		}
		for i := range 100 {
			assert.Equal(t, StateNew, begin(strconv.Itoa(i)))
			assert.LessOrEqual(t, len(m.entries), 3)
			assert.Equal(t, len(m.entries), m.order.Len())
		}
		assert.Equal(t, StateBusy, begin("97"), "asking evicts no entry, least of all its own")
		require.NoError(t, ledger.End(t.Context(), "97", true))
		assert.Equal(t, StateDone, begin("97"))
		for range 100 { // what fails time and again takes one place
			require.NoError(t, ledger.End(t.Context(), "99", false))
			assert.Equal(t, StateNew, begin("99"))
		}
		assert.Equal(t, 3, m.order.Len())
		assert.Equal(t, StateDone, begin("97"))
		advance(time.Minute)
		assert.Equal(t, StateNew, begin("98"), "a handler that never returned is forgotten too")
		assert.Equal(t, 1, m.order.Len())
		require.NoError(t, ledger.End(t.Context(), "gone", true))
	})
	assert.Panics(t, func() { NewLedger(0, 1) })
	assert.Panics(t, func() { NewLedger(1, 0) })
}

func TestStringNamesNoSecret(t *testing.T) {
	t.Parallel()
	s := hookSecrets(t, hookSecret)[0]
	assert.Equal(t, "webhook.Secret("+s.Fingerprint()+")", s.String())
	assert.Equal(t, "webhook.Verifier(X-Webhook-Signature, "+s.Fingerprint()+")", verifier(t).String())
	assert.Equal(t, "webhook.Verifier()", (*Verifier)(nil).String())
	assert.Equal(t, "webhook.Secret(none)", Secret{}.String())
}

func FuzzSignature(f *testing.F) {
	for _, text := range []string{
		"", "sha256=", hookBase64, "sha256=" + hookBase64, strings.TrimRight(hookBase64, "="), strings.Repeat("0", 64),
		strings.Repeat("-", 43), strings.Repeat("_", 42) + "==", " " + hookBase64 + "\t", hookBase64[:20] + "\r\n" + hookBase64[20:],
	} {
		f.Add(text)
	}
	secrets := hookSecrets(f, hookSecret)
	f.Fuzz(func(t *testing.T, text string) {
		mac, ok := parseSignature(text)
		if !ok {
			assert.Zero(t, mac)
			return
		}
		// It is one of the few spellings of what was read, and none besides.
		spelt := strings.Trim(text, " \t")
		if len(spelt) > 7 && ascii.EqualFold(spelt[:7], "sha256=") {
			spelt = spelt[7:]
		}
		assert.Contains(t, []string{
			hex.EncodeToString(mac[:]), base64.StdEncoding.EncodeToString(mac[:]), base64.RawStdEncoding.EncodeToString(mac[:]),
			base64.URLEncoding.EncodeToString(mac[:]), base64.RawURLEncoding.EncodeToString(mac[:]),
		}, map[bool]string{true: strings.ToLower(spelt), false: spelt}[len(spelt) == 64])
		// And only the right one is let in.
		v, err := NewVerifier(secrets)
		require.NoError(t, err)
		right, _ := parseSignature(hookBase64)
		assert.Equal(t, mac == right, v.Verify([]byte(hookBody), text) == nil)
	})
}
