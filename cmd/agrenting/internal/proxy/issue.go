package proxy

import (
	"net/http"
	"regexp"
)

// issuing matches the paths at which a POST returns a new secret: a session, a key, a user
// token, or the secret that signs a webhook.
var issuing = regexp.MustCompile(`(?i)^(/api/v1)?/auth/(authenticate|rotate-key)/?$|` +
	`^/api/v1/agents(/register)?/?$|^/api/v1/agents/[^/]+/credentials/?$|` +
	`^/api/v1/(accounts/register|user/tokens|webhooks)/?$`)

// Issues reports whether a call returns a secret that the platform shows only once.
func Issues(method, path string) bool {
	return method == http.MethodPost && issuing.MatchString(path)
}
