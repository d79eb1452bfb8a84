package sdktest

import (
	"strings"
	"testing"

	"github.com/agrenting/agrenting-go/internal/sdktest/leak"
)

// AssertClean fails if text contains the secret in any form, or a query string.
func AssertClean(t *testing.T, text string, secrets ...string) {
	t.Helper()
	AssertNoSecret(t, text, secrets...)
	if strings.Contains(text, "query-value") {
		t.Errorf("text has a query string: %s", text)
	}
}

// AssertNoSecret fails if out contains a part of a secret in any form.
func AssertNoSecret(t *testing.T, out string, secrets ...string) {
	t.Helper()
	leak.AssertNone(t, out, secrets...)
}
