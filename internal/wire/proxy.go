package wire

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

var errProxyAuth = errors.New("agrenting: the proxy requires credentials (407 Proxy Authentication Required); " +
	"add them to the URL of the proxy, as in http://user:password@proxy:8080")

// CheckProxy is the OnProxyConnectResponse of a base transport. Without it, the error of a
// refusal by a proxy contains only the text that the proxy sent.
func CheckProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusProxyAuthRequired {
		return errProxyAuth
	}
	return nil
}

// IsProxyAuth reports whether a proxy refused to connect because it requires credentials. With
// a transport without [CheckProxy], the error contains only the text of the status.
func IsProxyAuth(err error) bool {
	return errors.Is(err, errProxyAuth) || strings.Contains(err.Error(), http.StatusText(http.StatusProxyAuthRequired))
}
