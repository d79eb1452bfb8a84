package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const echoedKey = "Zq7Wm3Xp9Rt5/Kv2Ln8Bc4Df6Gh1Jk0Ms"

// request runs the command against a server.
func request(t *testing.T, h http.Handler, args ...string) (code int, out, errs string) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), append([]string{"request", "--url", srv.URL}, args...), streams{
		in: strings.NewReader(""), out: &stdout, err: &stderr,
		lookup: func(name string) (string, bool) { return echoedKey, name == varAPIKey }, environ: func() []string { return nil },
	})
	return code, stdout.String(), stderr.String()
}

// formsOf returns the ways in which a platform may write a key into JSON.
func formsOf(key string) map[string]string {
	var values []string
	var escaped, percent strings.Builder
	for _, c := range []byte(key) {
		values = append(values, strconv.Itoa(int(c)))
		fmt.Fprintf(&escaped, `\u%04X`, c)
		fmt.Fprintf(&percent, "%%%02x", c)
	}
	list := strings.Join(values, ",")
	var indexed strings.Builder
	for i, v := range values {
		fmt.Fprintf(&indexed, `,"%d":%s`, i, v)
	}
	return map[string]string{
		"plain":       `"` + key + `"`,
		"within":      `"Bearer ` + key + `, it was"`,
		"slash":       `"` + strings.ReplaceAll(key, "/", `\/`) + `"`,
		"one escape":  `"\u005a` + key[1:] + `"`,
		"all escapes": `"` + escaped.String() + `"`,
		"percent":     `"` + percent.String() + `"`,
		"query":       `"` + url.QueryEscape(key) + `"`,
		"base64":      `"` + base64.StdEncoding.EncodeToString([]byte("Basic user:"+key)) + `"`,
		"base64 URL":  `"` + base64.RawURLEncoding.EncodeToString([]byte(key)) + `"`,
		"hex":         `"` + hex.EncodeToString([]byte(key)) + `"`,
		"JSON in it":  strconv.Quote(`{"key":"` + key + `"}`),
		"a name":      `{"` + key + `":1}`,
		"nested":      `[[{"a":["` + key + `"]}]]`,
		"bytes":       `[` + list + `]`,
		"indexed":     `{` + indexed.String()[1:] + `}`,
		"some bytes":  `[1, 2, ` + strings.ReplaceAll(list, ",", ",\n ") + `]`,
	}
}

// showsKey reports a form of the key in a text, also after JSON was decoded.
func showsKey(text string) bool {
	flat := strings.NewReplacer(" ", "", "\n", "", "[", "", "]", "", `\`, "").Replace(text)
	for name, form := range formsOf(echoedKey) {
		if name == "nested" || name == "within" || name == "a name" {
			continue // as plain
		}
		if form = strings.Trim(form, `"[]`); strings.Contains(text, form) || strings.Contains(flat, strings.ReplaceAll(form, `\`, "")) {
			return true
		}
	}
	return strings.Contains(text, echoedKey[1:]) || strings.Contains(text, echoedKey[:len(echoedKey)-1])
}

func TestRequestRemovesEchoedCredential(t *testing.T) {
	t.Parallel()
	modes := map[string][]string{
		"data": {"/x"}, "raw": {"--raw", "/x"}, "JSON": {"--json", "/x"}, "headers": {"-i", "/x"}, "JSON headers": {"--json", "-i", "/x"},
		"raw headers": {"--raw", "-i", "/x"}, "verbose": {"-v", "/x"}, "pages": {"--paginate", "/list"}, "JSON pages": {"--paginate", "--json", "/list"},
		"error": {"-i", "/error"}, "JSON error": {"--json", "/error"}, "no JSON": {"/text"}, "raw text": {"--raw", "/text"},
		"jq": {"--jq", ".", "/x"}, "jq of raw": {"--raw", "--jq", ".", "/x"}, "JSON jq": {"--json", "--jq", ".", "/x"},
		"jq of pages": {"--paginate", "--jq", ".", "/list"}, "jq error": {"--jq", "tojson|keys", "/x"}, "error jq": {"--jq", ".", "/error"},
	}
	for form, value := range formsOf(echoedKey) {
		for mode, args := range modes {
			t.Run(mode+", "+form, func(t *testing.T) {
				t.Parallel()
				_, out, errs := request(t, echo(value), append([]string{"GET"}, args...)...)
				assert.False(t, showsKey(out), out)
				assert.False(t, showsKey(errs), errs)
				if mode != "headers" && !strings.Contains(mode, "error") && !strings.HasPrefix(mode, "raw ") && mode != "no JSON" {
					assert.True(t, json.Valid([]byte(out)), out)
				}
				if !strings.Contains(mode, "error") && mode != "no JSON" {
					assert.Contains(t, out, "[redacted]")
				}
			})
		}
	}
}

// echo is a platform that responds with a value everywhere.
func echo(value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, flat := w.Header(), strings.ReplaceAll(value, "\n", "")
		h.Set("X-Debug", flat)
		h.Set("X-Request-ID", "for-"+r.Header.Get("X-Api-Key"))
		h.Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/list":
			fmt.Fprintf(w, `{"data":[{"you":%s},{"you":"b"}],"meta":{}}`, value)
		case "/error":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"errors":[{"code":"BAD","message":%s,"field":%[1]s,"details":{"a":%[1]s}}],"meta":{"request_id":%[1]s}}`, value)
		case "/text":
			h.Set("Content-Type", "text/"+r.Header.Get("X-Api-Key"))
			fmt.Fprint(w, "text: "+value)
		default:
			fmt.Fprintf(w, `{"data":{"you":%s},"meta":{"request_id":"r","caller":%[1]s}}`, value)
		}
	})
}

func TestRequestRedactsOnlyCredential(t *testing.T) {
	t.Parallel()
	const data = `{"b": 1.50, "a": "Zq7Wm3Xp9", "c": [1, 2, "<&>"], "d": "\u0041"}`
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"data":`+data+`}`) })
	_, out, _ := request(t, h, "GET", "/x", "--raw")
	assert.Equal(t, `{"data":`+data+`}`, out) //nolint:testifylint // byte by byte
	_, out, _ = request(t, h, "GET", "/x")
	assert.JSONEq(t, data, out)
}

func TestRequestOutputOptions(t *testing.T) {
	t.Parallel()
	_, out, _ := request(t, echo(`"`+echoedKey+`"`), "GET", "/x", "--show")
	assert.Contains(t, out, echoedKey)
}

func TestRequestWritesBodyUnchanged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "body")
	body := "\x89PNG\r\n\x00\xff" + strings.Repeat(echoedKey, 3)
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	code, out, errs := request(t, h, "GET", "/x", "--raw", "--out", file)
	assert.Zero(t, code, errs)
	assert.Empty(t, out)
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, body, string(got))
}

func TestRequestRefusesUnsearchableBodies(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"too large": {func(w http.ResponseWriter, _ *http.Request) {
			for range 33 {
				_, _ = w.Write(make([]byte, 1<<20))
			}
			_, _ = io.WriteString(w, echoedKey)
		}, "larger than 4 MiB"},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, echoedKey)
			_ = z.Close()
		}, "the body is compressed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := request(t, tc.serve, "GET", "/x", "--raw", "-H", "Accept-Encoding: gzip")
			assert.Equal(t, codeFailure, code)
			assert.Empty(t, out)
			assert.Contains(t, errs, tc.want)
			assert.Contains(t, errs, "--out FILE")
		})
	}
}

func TestRequestRefusesCredentialHeaders(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Authorization", "x-api-key", "X_API_KEY", "api_key", "Proxy_Authorization", "cookie"} {
		code, _, errs := request(t, http.NotFoundHandler(), "GET", "/x", "-H", name+": of-a-caller")
		assert.Equal(t, codeUsage, code, name)
		assert.NotContains(t, errs, "of-a-caller")
	}
}
