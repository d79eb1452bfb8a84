package proxy

import (
	"net/http"
	"regexp"
)

// issuing are the paths whose answer to a POST has a new secret in it: a session,
// a key, a user token, or what signs a webhook.
var issuing = regexp.MustCompile(`(?i)^(/api/v1)?/auth/(authenticate|rotate-key)/?$|` +
	`^/api/v1/agents(/register)?/?$|^/api/v1/agents/[^/]+/credentials/?$|` +
	`^/api/v1/(accounts/register|user/tokens|webhooks)/?$`)

// Issues reports whether the platform answers a call with a secret that it shows
// only once.
func Issues(method, path string) bool {
	return method == http.MethodPost && issuing.MatchString(path)
}
