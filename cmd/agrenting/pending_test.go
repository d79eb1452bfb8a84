package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// forgetful is a platform that makes a new key or token for each call, whatever its
// idempotency key, and that drops its responses while lost is set.
type forgetful struct {
	*httptest.Server

	lost atomic.Bool
	made atomic.Int64
}

func newForgetful(t *testing.T) *forgetful {
	t.Helper()
	p := new(forgetful)
	began := time.Now().UTC()
	one := func(n int64) string {
		return fmt.Sprintf(`"id":"id-%d","name":"robot","created_at":%q`, n, began.Format(time.RFC3339))
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			n := p.made.Add(1)
			if p.lost.Load() {
				panic(http.ErrAbortHandler)
			}
			fmt.Fprintf(w, `{"data":{%s,"key":"key-number-%d-0123456789"}}`, one(n), n)
			return
		}
		all := []string{fmt.Sprintf(`{"id":"old","name":"robot","created_at":%q}`, began.Add(-time.Hour).Format(time.RFC3339)), `{"id":"named","name":"other"}`}
		for n := range p.made.Load() {
			all = append(all, "{"+one(n+1)+"}")
		}
		fmt.Fprintf(w, `{"data":[%s]}`, strings.Join(all, ","))
	}))
	t.Cleanup(p.Close)
	return p
}

func TestRepeatedCallListsOtherNewKeys(t *testing.T) {
	t.Parallel()

	for _, what := range []string{"keys", "tokens"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := newForgetful(t)
			file := filepath.Join(t.TempDir(), "secret")
			create := func() (out, errs string, code int) {
				var o, e strings.Builder
				args := []string{what, "create", "--out", file, "--url", p.URL}
				if what == "keys" {
					args = append(args, "--agent", "agent", "--name")
				}
				code = run(t.Context(), append(args, "robot"), streams{
					in: strings.NewReader(""), out: &o, err: &e, environ: func() []string { return nil },
					lookup: func(name string) (string, bool) { return "abcdefghijklmnop", name == varAPIKey },
				})
				return o.String(), e.String(), code
			}
			_, errs, code := create()
			require.Equal(t, codeOK, code, errs)
			assert.NotContains(t, errs, "others")
			require.NoError(t, os.Remove(file))

			p.lost.Store(true)
			_, errs, code = create()
			require.Equal(t, codeNetwork, code, errs)
			p.lost.Store(false)
			made := p.made.Load()
			require.Greater(t, made, int64(2), "it is repeated within a run, too")
			out, errs, code := create()
			require.Equal(t, codeOK, code, errs)
			assert.Contains(t, out, fmt.Sprintf("id-%d\n", made+1))
			var others []string
			for n := int64(1); n <= made; n++ {
				others = append(others, fmt.Sprintf("id-%d", n))
			}
			assert.Contains(t, errs, "others with the same name were created since the first attempt: "+
				strings.Join(others, ", ")+"; revoke those that no program uses\n")
		})
	}
}

func TestPendingCallsDiffer(t *testing.T) {
	t.Parallel()

	base := pendingCall{Command: "keys create", URL: "https://a.example", Inputs: []byte(`{"agent": "a"}`), Credential: "sha256:1"}
	for want, change := range map[string]func(*pendingCall){
		"":                              func(c *pendingCall) { c.Inputs = []byte(`{"agent":"a"}`) },
		"it was made by the command ":   func(c *pendingCall) { c.Command = "tokens create" },
		"it is for the platform at ":    func(c *pendingCall) { c.URL = "https://b.example" },
		"it was made with {":            func(c *pendingCall) { c.Inputs = []byte(`{"agent":"b"}`) },
		"it was made with the credent":  func(c *pendingCall) { c.Credential = "sha256:2" },
		"it was made without a credent": func(c *pendingCall) { c.Credential = "" },
	} {
		before := base
		change(&before)
		got := before.differs(&base)
		assert.Equal(t, want == "", got == "", got)
		assert.True(t, strings.HasPrefix(got, want), "%q: %q", want, got)
	}
}
