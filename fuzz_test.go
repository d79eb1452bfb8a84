package agrenting

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

func FuzzEnvelope(f *testing.F) {
	const key = "Zq7+Wm/3Xp9=Rt5~Kv2&Ln8"
	for _, body := range []string{
		"", "null", "[]", "{}", "1", `"text"`, "not JSON", "<html>@</html>", "@", "\ufeff{}", "{\"data\":", "\x00", "\xff@\xfe",
		`{"data":{"id":"1"},"meta":{"request_id":"r1","pagination":{"total_count":"12","cursor":null,"has_more":true}},"errors":[]}`,
		`{"data":null,"meta":null,"errors":null}`,
		`{"errors":[{"code":"VALIDATION","message":"bad @","field":"@","details":{"a":["@"]}}]}`,
		`{"errors":[{"code":"@","detail":"you sent @"}, 1, null, "@", {}, []]}`,
		`{"meta":{"request_id":"@"},"errors":[{"code":"A\nB@"}]}`, `{"errors":{"title":"@"}}`, `{"errors":"@"}`, `{"error":"@"}`, `{"error":{"message":"Bearer @"}}`,
		`{"message":"@","details":"@"}`, `{"meta":{"request_id":{},"pagination":[]},"errors":[{"message":["@"]}]}`,
		`{"errors":[{"message":"` + strings.Repeat("x", secret.MaxClean-3) + `@"}]}`,
	} {
		f.Add([]byte(body), uint8(0))
		f.Add([]byte(body), uint8(1))
		f.Add([]byte(body), uint8(2))
	}
	spellings := []string{key, url.QueryEscape(key), base64.StdEncoding.EncodeToString([]byte(key))}
	f.Fuzz(func(t *testing.T, body []byte, spelling uint8) {
		planted := spellings[int(spelling)%len(spellings)]
		body = bytes.ReplaceAll(body, []byte("@"), []byte(planted))
		env, err := wire.Decode(body)
		if err == nil && len(bytes.TrimSpace(body)) == 0 {
			assert.Nil(t, env.Data)
		}
		e := newAPIError(&Response{StatusCode: http.StatusBadRequest, Header: http.Header{}}, &env, body, false, key)
		text := e.Error()
		for _, form := range spellings {
			assert.NotContains(t, text, form)
		}
		assert.NotContains(t, text, "\n", "one line")
	})
}

func FuzzAgentID(f *testing.F) {
	for _, id := range []string{
		"", "a", "7f9c24e8-3b1d-4c55-9e0a-1d2f3a4b5c6d", "did:agrenting:my-agent", "did:web:example.com%3A8080:a",
		" a", "a ", "a b", "a\tb", "a\r\nX-Api-Key: k", "a\x00", "a\x7f", "a,b", "a;b", `"a"`, "ä", "\xff", strings.Repeat("a", 600),
	} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if validateAgentID(id) != nil {
			return
		}
		// An accepted value arrives unchanged, as one value.
		req, err := http.NewRequest(http.MethodGet, apiURL+"/x", http.NoBody)
		require.NoError(t, err)
		req.Header[wire.HeaderAgentID] = newAgentHeader(id).values
		var wire bytes.Buffer
		require.NoError(t, req.Write(&wire))
		got, err := http.ReadRequest(bufio.NewReader(&wire))
		require.NoError(t, err)
		assert.Equal(t, []string{id}, got.Header.Values("X-Agent-ID"))
		assert.NotContains(t, id, ",")
		assert.Len(t, got.Header, 2, "with User-Agent")
	})
}
