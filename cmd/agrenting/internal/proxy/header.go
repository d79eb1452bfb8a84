package proxy

import (
	"net/http"
	"net/url"
	"strings"
)

// Names are compared by their letters and digits in lower case, because some servers ignore the
// case of a name, treat "_" as "-", or ignore other characters. The keys of these maps are names in
// this form.
var (
	// credentials are the headers and parameters that are always removed: the SDK adds the
	// credential.
	credentials = set("authorization", "xapikey", "apikey", "cookie", "cookie2",
		"xproxytoken", "proxyauthorization", "sessiontoken", "accesstoken")
	// overrides are the headers with which a caller could make the platform process a
	// request other than the one that the proxy has checked.
	overrides        = set("xhttpmethod", "xmethod", "xhttpverb")
	overridePrefixes = []string{"xforwarded", "xoriginal", "xrewrite"}
	// browser are the headers that describe the page in the browser. They do not concern
	// the platform.
	browser = set("origin", "referer")
	// framing are the headers of the connection, which only net/http may write. It ignores
	// them in another spelling, but other servers may not.
	framing = set("connection", "contentlength", "expect", "host", "keepalive", "proxyconnection",
		"te", "trailer", "transferencoding", "upgrade")
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// squash returns the letters and digits of a name in lower case. exact is set if the
// name has no other characters except "-".
func squash(name string) (squashed string, exact bool) {
	b := make([]byte, 0, 32)
	exact = true
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'A' && c <= 'Z':
			b = append(b, c|0x20)
		case (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'):
			b = append(b, c)
		case c != '-':
			exact = false
		}
	}
	return string(b), exact
}

// IsCredentialHeader reports whether a server may read a header of this name as a
// credential.
func IsCredentialHeader(name string) bool {
	s, _ := squash(name)
	return credentials[s]
}

const agentHeader = "xagentid"

// isAgentHeader reports whether a server may read a header of this name as X-Agent-ID.
func isAgentHeader(name string) bool {
	s, _ := squash(name)
	return s == agentHeader
}

// removesFromRequest reports whether the proxy removes a header of a request. pinned is set if
// the caller may not choose the agent.
func removesFromRequest(name string, pinned bool) bool {
	s, exact := squash(name)
	if credentials[s] || overrides[s] || browser[s] || (framing[s] && !exact) || (pinned && s == agentHeader) ||
		strings.HasPrefix(s, "secfetch") || strings.Contains(s, "methodoverride") {
		return true
	}
	for _, prefix := range overridePrefixes {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

// removesTrailer reports whether the proxy removes a trailer of a request.
func removesTrailer(name string, pinned bool) bool {
	s, _ := squash(name)
	return framing[s] || removesFromRequest(name, pinned)
}

// removesFromResponse reports whether the proxy removes a header of a response: the platform's
// cookies, and its rules for web pages. The proxy has other rules.
func removesFromResponse(name string) bool {
	s, _ := squash(name)
	return s == "setcookie" || s == "setcookie2" || strings.HasPrefix(s, "accesscontrol")
}

// cleanQuery returns a query without the parameters that the platform may read as a
// credential or as another method. A query without these is returned unchanged.
func cleanQuery(raw string) string {
	var kept []string
	dropped := false
	for _, pair := range strings.FieldsFunc(raw, func(r rune) bool { return r == '&' || r == ';' }) {
		if name, _, _ := strings.Cut(pair, "="); removesParameter(name) {
			dropped = true
			continue
		}
		kept = append(kept, pair)
	}
	if !dropped {
		return raw
	}
	return strings.Join(kept, "&")
}

// maxEncodings is how often the name of a parameter is decoded. A server decodes it once,
// and one behind another gateway twice.
const maxEncodings = 4

// removesParameter reports whether the proxy removes a parameter. The name may be
// encoded more than once, and may have brackets as in api_key[].
func removesParameter(name string) bool {
	for range maxEncodings {
		decoded, err := url.QueryUnescape(name)
		if err != nil {
			break
		}
		name = decoded
	}
	name, _, _ = strings.Cut(name, "[")
	s, exact := squash(name)
	return credentials[s] || (s == "method" && !exact) || strings.Contains(s, "methodoverride")
}

// accepted returns the Accept-Encoding for the platform, from that of the caller, which may be
// missing. The proxy must be able to decode the bodies of errors.
func accepted(values []string) []string {
	if values == nil {
		return nil // net/http asks for gzip, and decodes it
	}
	others := false // accepted by "*"
	for _, v := range values {
		for coding := range strings.SplitSeq(v, ",") {
			name, weight, _ := strings.Cut(coding, ";")
			switch strings.ToLower(strings.TrimSpace(name)) {
			case gzipCoding, "x-gzip":
				if isZero(weight) {
					return []string{"identity"}
				}
				return []string{gzipCoding}
			case "*":
				others = others || !isZero(weight)
			}
		}
	}
	if others {
		return []string{gzipCoding}
	}
	return []string{"identity"}
}

// isZero reports whether a weight such as "q=0.0" refuses a coding.
func isZero(weight string) bool {
	_, q, found := strings.Cut(weight, "=")
	return found && strings.Trim(q, " 0.") == ""
}

// cleanRequest removes the headers and parameters that a caller may not set.
func cleanRequest(out *http.Request, pinned bool) {
	for name := range out.Header {
		if removesFromRequest(name, pinned) {
			delete(out.Header, name)
		}
	}
	if values := accepted(out.Header["Accept-Encoding"]); values != nil {
		out.Header["Accept-Encoding"] = values
	}
	out.URL.RawQuery = cleanQuery(out.URL.RawQuery)
}
