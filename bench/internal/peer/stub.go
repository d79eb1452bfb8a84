package peer

import (
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Target is the URL of the requests in benchmarks. They are never sent over the network.
const Target = "https://agrenting.com/api/v1/agents/mine"

// Stub is a base that responds at once. It reads request bodies to their end, through a
// buffer of the size that net/http uses, and closes them.
type Stub struct{}

var (
	buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}
	// noHeader is shared by all responses and never changes.
	noHeader = http.Header{}
)

// authenticatePath is the path on which the platform exchanges keys for sessions.
const authenticatePath = "/api/v1/auth/authenticate"

// RoundTrip implements [http.RoundTripper].
func (Stub) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Path == authenticatePath {
		return session(req)
	}
	if req.Body != nil && req.Body != http.NoBody {
		if err := drain(req.Body); err != nil {
			return nil, err
		}
	}
	return &http.Response{StatusCode: http.StatusOK, Header: noHeader, Body: http.NoBody, Request: req}, nil
}

// session responds to an exchange with a session of one day.
func session(req *http.Request) (*http.Response, error) {
	body := `{"data":{"session_token":"session-of-the-benchmark","expires_at":"` +
		time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339) + `"}}`
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req,
	}, nil
}

// drain reads a body to its end with Read only. WriteTo would avoid the copying that
// every connection needs.
func drain(body io.ReadCloser) error {
	buf, ok := buffers.Get().(*[32 << 10]byte)
	if !ok {
		return io.ErrShortBuffer
	}
	defer buffers.Put(buf)
	for {
		_, err := body.Read(buf[:])
		if err == io.EOF {
			return body.Close()
		}
		if err != nil {
			return err
		}
	}
}

// Floor is the least that the contract of [http.RoundTripper] allows for adding one
// header: a shallow copy of the request, a shallow copy of its header map, and one entry
// whose value slice was made beforehand. It neither checks nor renews anything.
type Floor struct {
	Base   http.RoundTripper
	Values []string
}

// RoundTrip implements [http.RoundTripper].
func (f *Floor) RoundTrip(req *http.Request) (*http.Response, error) {
	out := new(http.Request)
	*out = *req
	out.Header = maps.Clone(req.Header)
	out.Header["Authorization"] = f.Values
	return f.Base.RoundTrip(out)
}

// CheckedFloor is [Floor] with a check whether the caller has set a credential, which
// then takes precedence, in any spelling. The least expensive check is one loop over the
// header map, because a map lookup finds only one spelling, and servers accept others.
type CheckedFloor struct{ Floor }

// RoundTrip implements [http.RoundTripper].
func (f *CheckedFloor) RoundTrip(req *http.Request) (*http.Response, error) {
	for name := range req.Header {
		if namesCredential(name) {
			return f.Base.RoundTrip(req)
		}
	}
	return f.Floor.RoundTrip(req)
}

// namesCredential reports whether a server may treat a header as a credential.
func namesCredential(name string) bool {
	switch len(name) { // excludes most names without a comparison
	case len("Authorization"):
		return spells(name, "authorization")
	case len("X-Api-Key"):
		return spells(name, "x-api-key")
	case len("Api-Key"):
		return spells(name, "api-key")
	default:
		return false
	}
}

// spells reports whether name is a spelling of lower, which has the same length: case
// does not matter, and some servers treat "_" as "-".
func spells(name, lower string) bool {
	for i := range len(lower) {
		c := name[i]
		if c == '_' {
			c = '-'
		}
		if c|0x20 != lower[i] {
			return false
		}
	}
	return true
}
