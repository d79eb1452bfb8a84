package agrenting_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// troubles make the errors of docs/troubleshooting.md.
var troubles = map[string]func(w *hintWorld) error{
	"revoked key": func(w *hintWorld) error { return w.call(nil, agrenting.WithCredential(agrenting.APIKey(w.dead))) },
	"ended session": func(w *hintWorld) error {
		token, _ := w.server.NewSession(w.key)
		w.server.RevokeSession(token)
		return w.call(nil, agrenting.WithCredential(agrenting.SessionToken(token, time.Now().Add(-time.Hour))))
	},
	"key as token": func(w *hintWorld) error { return w.call(nil, agrenting.WithCredential(agrenting.UserToken(w.key))) },
	"token as key": func(w *hintWorld) error { return w.call(nil, agrenting.WithCredential(agrenting.APIKey(w.token+"x"))) },
	"token with sessions": func(w *hintWorld) error {
		return w.call(nil, agrenting.WithCredential(agrenting.UserToken(w.token)), agrenting.WithSession())
	},
	"token with rotation": func(w *hintWorld) error {
		return w.call(nil, agrenting.WithCredential(agrenting.UserToken(w.token)), agrenting.WithStore(agrenting.MemoryStore()),
			agrenting.WithRotation(agrenting.RotationPolicy{}))
	},
	"anonymous":      func(w *hintWorld) error { return w.call(nil, agrenting.WithAnonymous()) },
	"nothing is set": func(w *hintWorld) error { return w.call(nil) },
	"dead key behind": func(w *hintWorld) error {
		return w.call(nil, agrenting.WithCredential(agrenting.APIKey(w.dead)), agrenting.WithSession())
	},
	"slow source": func(w *hintWorld) error {
		src := agrenting.CredentialSourceFunc(func(ctx context.Context) (agrenting.Credential, error) {
			<-ctx.Done()
			return agrenting.Credential{}, ctx.Err()
		})
		return w.call(nil, agrenting.WithCredentialSource(src), agrenting.WithTimeout(50*time.Millisecond))
	},
	"prefix twice": func(w *hintWorld) error {
		return w.call(nil, agrenting.WithCredential(agrenting.APIKey(w.key)), agrenting.WithBaseURL(w.server.URL+"/api/v1"))
	},
	"web page": func(w *hintWorld) error {
		return w.call(new(any), agrenting.WithCredential(agrenting.APIKey(w.key)), answeredBy(200, "<html>hi</html>", "Content-Type", "text/html"))
	},
	"list": func(w *hintWorld) error {
		return w.call(&struct{}{}, agrenting.WithCredential(agrenting.APIKey(w.key)),
			answeredBy(200, `{"data":[{"id":"1"}]}`, "Content-Type", "application/json"))
	},
	"object": func(w *hintWorld) error {
		return w.call(&[]string{}, agrenting.WithCredential(agrenting.APIKey(w.key)),
			answeredBy(200, `{"data":{"id":"1"}}`, "Content-Type", "application/json"))
	},
	"in memory": func(w *hintWorld) error {
		return w.call(nil, agrenting.WithCredential(agrenting.APIKey(w.key)), agrenting.WithTransport(sdktest.Loopback(w.t)))
	},
}

// sentinelsOfTroubles are those that the page names.
var sentinelsOfTroubles = map[string]error{
	"ErrUnauthorized": agrenting.ErrUnauthorized, "ErrInvalidCredential": agrenting.ErrInvalidCredential,
	"ErrNoCredential": agrenting.ErrNoCredential, "context.DeadlineExceeded": context.DeadlineExceeded,
	"ErrRouteNotFound": agrenting.ErrRouteNotFound, "ErrMalformedResponse": agrenting.ErrMalformedResponse,
}

// Each text of the page is that of an error, which matches the sentinel, and each error is
// on the page.
func TestTroubleshootingHasRealTexts(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("docs/troubleshooting.md")
	require.NoError(t, err)
	errs := map[string]error{}
	for name, trouble := range troubles {
		errs[name] = trouble(newHintWorld(t))
		require.Error(t, errs[name], name)
	}
	found := map[string]bool{}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*\\| (?:`([^`]+)`|–) \\|$").FindAllStringSubmatch(string(page), -1)
	require.GreaterOrEqual(t, len(rows), len(troubles))
	for _, row := range rows {
		pattern := regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(row[1]), "…", ".*"))
		matched := false
		for name, err := range errs {
			if pattern.MatchString(err.Error()) {
				matched, found[name] = true, true
				if row[2] != "" {
					require.Contains(t, sentinelsOfTroubles, row[2])
					require.ErrorIs(t, err, sentinelsOfTroubles[row[2]], row[1])
				}
			}
		}
		assert.True(t, matched, "no error has the text %q", row[1])
	}
	for name, err := range errs {
		assert.True(t, found[name], "the page does not have %q: %v", name, err)
	}
}
