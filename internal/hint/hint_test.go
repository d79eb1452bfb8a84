package hint_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/keyfile"
	"github.com/agrenting/agrenting-go/internal/secret"
)

func TestRejectedCredential(t *testing.T) {
	t.Parallel()
	variable := hint.Source{Name: "AGRENTING_API_KEY"}
	const fingerprint = "sha256:1a2b3c4d5e"
	for name, tc := range map[string]struct {
		c    hint.Credential
		want string
	}{
		"verdict unknown": {
			hint.Credential{Kind: secret.KindAPIKey, Source: variable},
			"The platform rejected the api key sha256:1a2b3c4d5e from AGRENTING_API_KEY. It is invalid, expired, or revoked: " +
				"put a valid one into AGRENTING_API_KEY (keys come from https://agrenting.com/dashboard/api-keys)",
		},
		"dead, in a store": {
			hint.Credential{Kind: secret.KindAPIKey, Source: hint.Source{Name: "WithStore", Place: "a store"}, Initial: variable, Dead: true},
			"The platform rejected the api key sha256:1a2b3c4d5e from WithStore (a store), and confirmed that when asked. It is invalid, " +
				"expired, or revoked: put a valid one into AGRENTING_API_KEY; the store adopts it (keys come from https://agrenting.com/dashboard/api-keys)",
		},
		"alive": {
			hint.Credential{Kind: secret.KindSession, Source: variable, Exchanged: true, Alive: true},
			"The platform accepts the session sha256:1a2b3c4d5e of the key from AGRENTING_API_KEY for other requests, " +
				"so this route refuses it. Check whether the route takes a credential of this kind",
		},
		"expired session": {
			hint.Credential{
				Kind: secret.KindSession, Source: hint.Source{Name: "WithCredential"},
				Expired: time.Date(2026, 11, 27, 22, 0, 0, 0, time.UTC),
			},
			"The platform rejected the session sha256:1a2b3c4d5e from WithCredential. It expired at 2026-11-27T22:00:00Z. " +
				"A session token that you supply is not renewed. Replace it, or use the API key with WithSession",
		},
		"user token of a file": {
			hint.Credential{Kind: secret.KindUserToken, Marked: true, Source: hint.Source{Name: "AGRENTING_KEY_FILE", Place: `"/key"`}},
			"The platform rejected the user token sha256:1a2b3c4d5e from AGRENTING_KEY_FILE (\"/key\"). It is invalid, expired, or revoked: " +
				"put a valid one into \"/key\", the file of AGRENTING_KEY_FILE",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.c.Fingerprint = fingerprint
			assert.Equal(t, tc.want, tc.c.Rejected())
		})
	}
}

func TestRepeatedPathOfTheBaseURL(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ base, path, want string }{
		"whole path":         {"/api/v1", "/api/v1/api/v1/tasks", "/api/v1"},
		"its end":            {"/tenant/api/v1", "/tenant/api/v1/api/v1/tasks", "/api/v1"},
		"one segment":        {"/api", "/api/api/v1/tasks", "/api"},
		"the path itself":    {"/api/v1", "/api/v1/api/v1", "/api/v1"},
		"no path":            {"", "/api/v1/api/v1/tasks", ""},
		"not repeated":       {"/tenant", "/tenant/api/v1/tasks", ""},
		"a longer name":      {"/api", "/api/apis/v1", ""},
		"elsewhere":          {"/api", "/other/api/x", ""},
		"beside":             {"/api", "/apis/api/x", ""},
		"of another segment": {"/v1/api", "/v1/api/v1/tasks", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, tc.want, hint.Repeated(tc.base, tc.path))
		})
	}
}

func TestResponseText(t *testing.T) {
	t.Parallel()
	cred := &hint.Credential{Kind: secret.KindAPIKey, Source: hint.Source{Name: "AGRENTING_API_KEY"}}
	for name, tc := range map[string]struct {
		r    hint.Response
		want string // a part; empty: there is no text
	}{
		"rejected":                {hint.Response{Status: 401, Credential: cred}, "AGRENTING_API_KEY"},
		"no credential":           {hint.Response{Status: 401}, ""},
		"forbidden":               {hint.Response{Status: 403, Credential: cred}, ""},
		"handshake":               {hint.Response{Status: 403, Handshake: true, Credential: cred}, "SocketHTTPClient"},
		"foreign":                 {hint.Response{Status: 401, Missing: hint.Foreign("it is far")}, "because it is far. Add the origin"},
		"returned":                {hint.Response{Status: 401, Missing: hint.Left()}, "through an origin"},
		"own":                     {hint.Response{Status: 401, Missing: hint.Own("a header")}, "in a header. Remove that"},
		"own, and another status": {hint.Response{Status: 404, Missing: hint.Own("a header")}, ""},
		"repeated, and not found": {hint.Response{Status: 404, Base: "/api", Path: "/api/api/x"}, "without /api"},
		"repeated, and found":     {hint.Response{Status: 422, Base: "/api", Path: "/api/api/x"}, ""},
		"page":                    {hint.Response{Status: 502, Host: "h", ContentType: "Text/HTML; charset=x"}, "of h is text/html,"},
		"rejected by a page":      {hint.Response{Status: 401, Host: "h", ContentType: "text/html", Credential: cred}, "api-keys). The response of h"},
		"text":                    {hint.Response{Status: 502, Host: "h", ContentType: "text/plain"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.want == "" {
				assert.Empty(t, tc.r.Text())
			} else {
				assert.Contains(t, tc.r.Text(), tc.want)
			}
		})
	}
}

func TestShapeOfData(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		data, want string
		out        any
	}{
		"list into a struct":   {`[{}]`, "slice", new(struct{})},
		"list into a map":      {`[]`, "slice", new(map[string]int)},
		"object into a slice":  {`{}`, "struct", new([]int)},
		"text into a slice":    {`"x"`, "struct", new([]int)},
		"text into a struct":   {`"x"`, "", new(struct{})},
		"list of other values": {`["x"]`, "", new([]int)},
		"a field":              {`{"a":[]}`, "", new(struct{ A int })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := hint.Shape(json.Unmarshal([]byte(tc.data), tc.out), []byte(tc.data), tc.out)
			if tc.want == "" {
				assert.Empty(t, got)
			} else {
				assert.Contains(t, got, tc.want)
			}
		})
	}
	assert.Empty(t, hint.Shape(nil, []byte(`[]`), new(struct{})))
}

func TestPlaceOfASource(t *testing.T) {
	t.Parallel()
	assert.Empty(t, hint.Place(nil))
	assert.Empty(t, hint.Place(func() {}))
	assert.Equal(t, "*strings.Reader", hint.Place(new(strings.Reader)))
	assert.Equal(t, "hint_test.named", hint.Place(named("vault hunter2")), "others may print a secret")
	assert.Equal(t, `"/run/key"`, hint.Place(keyfile.New("/run/key", 0)))
}

type named string

func (n named) String() string { return string(n) }
