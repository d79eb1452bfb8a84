package rotation_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// The key in use is on the second page. Each case is one documented form of
// pagination.
func TestRotateFindsItsKeyOnTheSecondPage(t *testing.T) {
	t.Parallel()
	const first, second = `[{"id":"k0","last4":"none"}]`, `[{"id":"k1","last4":"Yd4x"}]`
	const key, next = "0123456789abcdefYd4x", "fedcba9876543210Zq7w"
	for name, pages := range map[string][2]string{
		"cursor": {
			`{"data":` + first + `,"meta":{"pagination":{"cursor":"c","has_more":true}}}`,
			`{"data":` + second + `}`,
		},
		"page count": {
			`{"data":{"credentials":` + first + `,"page":1,"total_pages":2}}`,
			`{"data":{"credentials":` + second + `,"page":2,"total_pages":2}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := &sdktest.Recorder{Then: func(_ int, s sdktest.Seen) *http.Response {
				switch {
				case s.Method == http.MethodPost:
					return sdktest.Reply(http.StatusCreated, `{"data":{"api_key":"`+next+`","id":"k2"}}`)
				case !strings.Contains(s.URL, "/credentials?"):
					return sdktest.Reply(http.StatusOK, `{"data":{}}`)
				case strings.Contains(s.URL, "cursor=c"), strings.Contains(s.URL, "page=2"):
					return sdktest.Reply(http.StatusOK, pages[1])
				default:
					return sdktest.Reply(http.StatusOK, pages[0])
				}
			}}
			c := sdktest.ClientOver(t, base, agrenting.Static(agrenting.APIKey(key)), agrenting.WithStore(agrenting.MemoryStore()),
				agrenting.WithRotation(agrenting.RotationPolicy{Strategy: agrenting.Overlap, AgentID: "a1", Every: -1}))
			_, err := c.Rotate(t.Context())
			require.NoError(t, err)
			var revoked []string
			for _, s := range base.Requests() {
				if s.Method == http.MethodDelete {
					revoked = append(revoked, s.URL)
				}
			}
			require.Len(t, revoked, 1)
			assert.True(t, strings.HasSuffix(revoked[0], "/agents/a1/credentials/k1"), revoked[0])
		})
	}
}
