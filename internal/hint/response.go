package hint

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
)

// baseURL is a text for the base URL and for what sets it.
const baseURL = "the base URL (AGRENTING_URL or WithBaseURL)"

// Missing says why a request got no credential of the SDK. The zero value means that the
// request got one.
type Missing struct {
	// Why is the reason, as a clause. Option is the change that would add the credential.
	Why, Option string
}

// Own returns the reason for a request that has a credential of the caller, in a header or
// a parameter.
func Own(where string) Missing {
	return Missing{
		Why:    "the request has the caller's own credential, in " + where,
		Option: "Remove that, and the SDK adds its own",
	}
}

// Foreign returns the reason for a request to an origin that may not receive credentials.
// why names the origin.
func Foreign(why string) Missing {
	return Missing{Why: why, Option: "Add the origin to WithAllowedOrigins, or set it as " + baseURL}
}

// Left returns the reason for a request of a redirect chain that has left the pinned
// origins.
func Left() Missing {
	return Missing{
		Why:    "a redirect led to it through an origin that may not receive credentials",
		Option: "Add that origin to WithAllowedOrigins, or request the last URL directly",
	}
}

// Response describes a response with an error status, such as {Status: 404, Host:
// "agrenting.com", Path: "/api/v1/api/v1/agents", Base: "/api/v1"}. Most programs only set
// Base, Missing, and Credential, and call [Response.Fill].
type Response struct {
	Status int
	// Host is the host and port of the request. Path and Base are the escaped paths of
	// the request and of the base URL.
	Host, Path, Base string
	// ContentType is the content type of the response.
	ContentType string
	// Handshake is set for a WebSocket handshake whose credential is in a header.
	Handshake bool
	Missing   Missing
	// Credential is nil if the request got no credential of the SDK.
	Credential *Credential
}

// handshake returns what to do about a refused WebSocket handshake; it returns "" for other
// requests.
func (r *Response) handshake() string {
	if !r.Handshake || (r.Status != http.StatusUnauthorized && r.Status != http.StatusForbidden) {
		return ""
	}
	return "This is a WebSocket handshake, and the platform reads its credential from the query. " +
		"Dial with Client.SocketHTTPClient instead of Client.HTTPClient"
}

// Text returns what can be done about the response, or "" if that is not known.
func (r *Response) Text() string {
	var all []string
	switch repeated, handshake := Repeated(r.Base, r.Path), r.handshake(); {
	case r.Status == http.StatusUnauthorized && r.Missing != Missing{}:
		all = append(all, "The SDK added no credential, because "+r.Missing.Why+". "+r.Missing.Option)
	case handshake != "":
		all = append(all, handshake)
	case r.Status == http.StatusNotFound && repeated != "":
		all = append(all, "The path has "+repeated+" twice, because "+baseURL+" ends with it. Set the base URL without "+repeated)
	case r.Status == http.StatusUnauthorized && r.Credential != nil:
		all = append(all, r.Credential.Rejected())
	}
	if page := WebPage(r.Host, r.ContentType); page != "" {
		all = append(all, page)
	}
	return strings.Join(all, ". ")
}

// WebPage returns the meaning of a web page in place of the platform's response. It returns
// "" if a response of this type is not a web page.
func WebPage(host, contentType string) string {
	kind, _, _ := strings.Cut(strings.ToLower(contentType), ";")
	switch kind = strings.TrimSpace(kind); kind {
	case "text/html", "application/xhtml+xml":
		return NotPlatform(host, kind)
	default:
		return ""
	}
}

// NotPlatform returns the meaning of a response that does not come from the platform.
// contentType may be empty.
func NotPlatform(host, contentType string) string {
	what := "something else"
	if contentType != "" {
		what = secret.Clean(contentType)
	}
	return "The response of " + secret.Clean(host) + " is " + what + ", but the platform's responses are JSON. " +
		"Check " + baseURL + ", and whether a proxy or a login page has responded instead"
}

// Repeated returns the end of the path of a base URL, such as /api/v1, if the rest of path
// begins with it again. Otherwise, it returns "".
func Repeated(base, path string) string {
	rest, ok := strings.CutPrefix(path, base)
	if !ok || base == "" || !strings.HasPrefix(rest, "/") {
		return ""
	}
	for tail := base; tail != ""; {
		if rest == tail || strings.HasPrefix(rest, tail+"/") {
			return secret.Path(tail)
		}
		next := strings.IndexByte(tail[1:], '/')
		if next < 0 {
			break
		}
		tail = tail[next+1:]
	}
	return ""
}

// Shape returns what to decode data into, if err is an error of encoding/json because data
// is a list and out is not, or vice versa. Otherwise, it returns "".
func Shape(err error, data []byte, out any) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok || e.Field != "" || len(data) == 0 {
		return ""
	}
	kind := reflect.TypeOf(out).Elem().Kind()
	list, wanted := data[0] == '[', kind == reflect.Slice || kind == reflect.Array
	switch {
	case list && !wanted:
		return "The data is a list: decode it into a slice, or use List"
	case !list && wanted:
		return "The data is not a list: decode it into a struct or a map"
	default:
		return ""
	}
}
