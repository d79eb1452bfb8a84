package secret_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// vault is a source of another package, with the String of its URL.
type vault struct{ *url.URL }

type sdkStore string

func (s sdkStore) String() string { return string(s) }
func (sdkStore) ShowsNoSecret()   {}

type misnamed struct{ name string }

func (m *misnamed) String() string { return m.name }
func (*misnamed) ShowsNoSecret()   {}

func TestNameOf_onlyOwnTypesNameThemselves(t *testing.T) {
	t.Parallel()
	u := &url.URL{Scheme: "https", User: url.UserPassword("u", "hunter2"), Host: "vault.test"}
	for want, v := range map[string]any{
		"":                                nil,
		"secret_test.vault":               vault{u},
		"*secret_test.vault":              &vault{u},
		"*url.URL":                        u,
		"*strings.Reader":                 new(strings.Reader),
		"the store":                       sdkStore("the store"),
		"https://[redacted]@vault.test/a": sdkStore("https://u:hunter2@vault.test/a?token=hunter2"),
		"*secret_test.misnamed":           (*misnamed)(nil),
	} {
		assert.Equal(t, want, secret.NameOf(v))
	}
}
