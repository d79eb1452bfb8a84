package main

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A scripted platform responds to each POST with the same body.
type scripted struct {
	*httptest.Server

	mu   sync.Mutex
	body string
	keys []string // the idempotency keys of the calls, without repetitions
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	p := new(scripted)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if key := r.Header.Get(idempotencyHeader); r.Method == http.MethodPost && !slices.Contains(p.keys, key) {
			p.keys = append(p.keys, key)
		}
		_, _ = io.WriteString(w, p.body)
	}))
	t.Cleanup(p.Close)
	return p
}

// run runs a command while the platform responds with body.
func (p *scripted) run(t *testing.T, body string, args ...string) (code int, out, errs string) {
	t.Helper()
	p.mu.Lock()
	p.body = body
	p.mu.Unlock()
	var o, e strings.Builder
	code = run(t.Context(), append([]string{"--url", p.URL, "--agent", "a-1"}, args...), streams{
		in: strings.NewReader(""), out: &o, err: &e, environ: func() []string { return nil },
		lookup: func(name string) (string, bool) { return "abcdefghijklmnop", name == varAPIKey },
	})
	return code, o.String(), e.String()
}

const newKey = "a-new-key-0123456789"

// issuers are commands that issue a secret.
var issuers = map[string][]string{
	"keys create":     {"keys", "create", "--name", "robot"},
	"tokens create":   {"tokens", "create", "robot"},
	"agents register": {"agents", "register", "Robot", "--did", "did:web:robot.example", "--capability", "writing"},
	"request":         {"request", "POST", "/api/v1/agents/a-1/credentials", "-f", "name=robot"},
	"raw request":     {"request", "POST", "/api/v1/agents/a-1/credentials", "-f", "name=robot", "--raw"},
}

// TestInconclusiveResponseIsRepeated covers responses that may come from a gateway.
func TestInconclusiveResponseIsRepeated(t *testing.T) {
	t.Parallel()

	for name, body := range map[string]string{
		"page": "<html><body>Log in</body></html>", "truncated": `{"data":{"id":"k-1","api_key":"a-new`,
		"message": `{"message":"ok"}`, "object": "{}", "no data": `{"data":null}`, "empty": "", "list": "[]",
		"meta": `{"data":null,"meta":{"request_id":"0123456789abcdef"}}`, "error": `{"data":null,"errors":[{"code":"LATE"}]}`,
	} {
		for command, args := range issuers {
			t.Run(command+", "+name, func(t *testing.T) {
				t.Parallel()
				p, file := newScripted(t), filepath.Join(t.TempDir(), "secret")
				args := append(slices.Clone(args), "--out", file)
				code, out, errs := p.run(t, body, args...)
				assert.Equal(t, codeFailure, code, errs)
				assert.Empty(t, out)
				assert.Contains(t, errs, "it is not known whether")
				assert.Contains(t, errs, "repeat the same command within 23 h")
				assert.NotContains(t, errs, "issued a secret")
				assert.NoFileExists(t, file)
				assert.FileExists(t, file+pendingSuffix)
				_, rest, found := strings.Cut(errs, "the response is in ")
				assert.Equal(t, len(body) > 2 && json.Valid([]byte(body)) && name != "error", found, errs)
				if found {
					path, _, _ := strings.Cut(rest, ";")
					kept, err := os.ReadFile(path)
					require.NoError(t, err)
					require.NoError(t, os.Remove(path))
					assert.Equal(t, body+"\n", string(kept))
				}

				code, _, errs = p.run(t, `{"data":{"id":"k-1","api_key":"`+newKey+`"}}`, args...)
				assert.Equal(t, codeOK, code, errs)
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				assert.Contains(t, string(text), newKey)
				assert.NoFileExists(t, file+pendingSuffix)
				assert.Len(t, p.keys, 1, "both calls have the same idempotency key")
			})
		}
	}
}

func TestInconclusiveResponseIsNotPrinted(t *testing.T) {
	t.Parallel()

	for command, args := range issuers {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			p := newScripted(t)
			code, out, errs := p.run(t, "<html></html>", append(slices.Clone(args), "--show")...)
			assert.Equal(t, codeFailure, code, errs)
			assert.Empty(t, out)
			assert.Contains(t, errs, p.keys[0])
		})
	}
}

// TestRequestKeepsSecretBesideData covers responses whose data may not have the secret.
func TestRequestKeepsSecretBesideData(t *testing.T) {
	t.Parallel()

	for body, want := range map[string]string{
		`{"data":{"id":"k-1"},"api_key":"` + newKey + `"}`:                     "",
		`{"data":null,"api_key":"` + newKey + `"}`:                             "",
		`{"data":{"id":"k-1"},"key":{"secret":"` + newKey + `"}}`:              "",
		`{"data":{"api_key":"` + newKey + `"},"errors":[{"code":"LATE"}]}`:     "",
		`{"data":{"api_key":"` + newKey + `"},"meta":{"request_id":"r"}}`:      `{"api_key":"` + newKey + `"}`,
		`{"data":{"api_key":"` + newKey + `"},"success":true,"status":"done"}`: `{"api_key":"` + newKey + `"}`,
		`{"data":{"api_key":"` + newKey + `"},"message":"Keep it in a safe!"}`: `{"api_key":"` + newKey + `"}`,
	} {
		for _, raw := range []bool{false, true} {
			p, file := newScripted(t), filepath.Join(t.TempDir(), "secret")
			args := slices.Clone(issuers["request"])
			if raw {
				args = append(args, "--raw")
			}
			codeShown, shown, _ := p.run(t, body, append(args, "--show")...)
			code, out, errs := p.run(t, body, append(args, "--out", file)...)
			assert.Equal(t, code, codeShown, body)
			assert.Empty(t, out)
			text, err := os.ReadFile(file)
			require.NoError(t, err, errs)
			assert.NoFileExists(t, file+pendingSuffix)
			if want == "" {
				assert.Equal(t, codeFailure, code, body)
				assert.Contains(t, errs, "its response contains the secret: it is in "+file)
			} else {
				assert.Equal(t, codeOK, code, errs)
			}
			if raw {
				assert.Equal(t, body, string(text))
				assert.Equal(t, body, shown)
				continue
			}
			assert.JSONEq(t, cmp.Or(want, body), string(text))
			assert.JSONEq(t, cmp.Or(want, body), shown)
		}
	}
}

func TestRepeatedRequestIsTheSameCall(t *testing.T) {
	t.Parallel()

	p, file := newScripted(t), filepath.Join(t.TempDir(), "secret")
	const path = "/api/v1/agents/a-1/credentials"
	first := []string{"request", "POST", path, "-f", "name=robot", "--out", file}
	code, _, errs := p.run(t, "", first...)
	require.Equal(t, codeFailure, code, errs)
	pending, err := os.ReadFile(file + pendingSuffix)
	require.NoError(t, err)
	assert.NotContains(t, string(pending), "robot", "a body may have a password")
	for want, args := range map[string][]string{
		"it was made with {":                     {"request", "POST", path, "-f", "name=toy", "--out", file},
		"and it was made":                        {"request", "POST", "/api/v1/user/tokens", "-f", "name=robot", "--out", file},
		`"query":""`:                             {"request", "POST", path, "-f", "name=robot", "--input", os.DevNull, "--out", file},
		`"agent":"a-1"`:                          append(slices.Clone(first), "--agent", "a-2"),
		"by the command req":                     {"keys", "create", "--name", "robot", "--out", file},
		"leave out -H 'X-Idempotency-Key: mine'": append(slices.Clone(first), "-H", "X-Idempotency-Key: mine"),
	} {
		code, _, errs = p.run(t, `{"data":{"api_key":"`+newKey+`"}}`, args...)
		assert.Equal(t, codeUsage, code, errs)
		assert.Contains(t, errs, want)
	}
	assert.Len(t, p.keys, 1)
	code, _, errs = p.run(t, `{"data":{"api_key":"`+newKey+`"}}`, first...)
	assert.Equal(t, codeOK, code, errs)
	assert.Len(t, p.keys, 1)
}

func TestRequestForgetsCallsThatWereNotMade(t *testing.T) {
	t.Parallel()

	p, file := newScripted(t), filepath.Join(t.TempDir(), "secret")
	for _, extra := range [][]string{{"--paginate"}, {"-H", "X-Idempotency-Key: a b"}, {"-H", "accept-encoding: gzip"}} {
		code, _, errs := p.run(t, "", append([]string{"request", "POST", "/api/v1/agents", "--out", file}, extra...)...)
		assert.NotEqual(t, codeOK, code, errs)
		assert.NoFileExists(t, file+pendingSuffix)
	}
	assert.Empty(t, p.keys)
}

// Another request must not get the secret of the one that is pending.
func TestPendingRequestRefusesOtherHeaders(t *testing.T) {
	t.Parallel()

	p, file := newScripted(t), filepath.Join(t.TempDir(), "secret")
	args := []string{"request", "POST", "/api/v1/auth/rotate-key", "--out", file, "-H", "X-Agent-ID: a-2"}
	code, _, errs := p.run(t, "<html>", args...)
	assert.Equal(t, codeFailure, code, errs)
	args[len(args)-1] = "X-Agent-ID: a-3"
	code, _, errs = p.run(t, `{"data":{"id":"k-1","api_key":"`+newKey+`"}}`, args...)
	assert.NotEqual(t, codeOK, code, errs)
	assert.NoFileExists(t, file)
	assert.Len(t, p.keys, 1)
}
