package sdktest

import "net/http"

// verifyPath is the default of Routes.Verify.
const verifyPath = "/api/v1/hirings/pending"

// IsVerify reports whether the SDK asks about the credential of a request.
func IsVerify(r *http.Request) bool { return r.Method == http.MethodGet && r.URL.Path == verifyPath }

// Verifying is a base that responds separately when the SDK asks about a credential:
// every secret except the valid one is dead.
func Verifying(valid string, base http.RoundTripper) http.RoundTripper {
	return Between(base, func(r *http.Request) *http.Response {
		switch {
		case !IsVerify(r):
			return nil
		case SecretOf(r.Header) == valid:
			return Reply(http.StatusOK, `{"data":[]}`)
		default:
			return Reply(http.StatusUnauthorized, `{"errors":[{"code":"UNAUTHORIZED","message":"the key was revoked"}]}`)
		}
	})
}
