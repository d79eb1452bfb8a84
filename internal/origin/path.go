package origin

import (
	"fmt"
	"maps"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go/internal/ascii"
)

// CheckPath returns an error for paths that lead elsewhere than they seem to, such as paths
// with a host or with dot segments.
func CheckPath(path string) error {
	_, err := parsePath(path)
	return err
}

func parsePath(path string) (*url.URL, error) {
	const hint = "a path must be absolute and on the platform, such as /api/v1/agents"
	u, err := url.Parse(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the path cannot be parsed; %s", ErrInvalid, hint)
	case u.Scheme != "" || u.Host != "" || u.User != nil || strings.HasPrefix(path, "//"):
		return nil, fmt.Errorf("%w: the path names a host; %s", ErrForeign, hint)
	case !strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("%w: the path does not begin with a slash; %s", ErrInvalid, hint)
	}
	return u, checkParts(path, u)
}

// checkParts returns an error for parts that would make a path lead elsewhere. u is text,
// parsed.
func checkParts(text string, u *url.URL) error {
	switch {
	case strings.Contains(text, "#"):
		return fmt.Errorf("%w: the path has a fragment; escape # as %%23", ErrInvalid)
	case strings.Contains(u.Path, "\\"):
		return fmt.Errorf("%w: the path has a backslash, which some servers read as a slash; escape it as %%5C", ErrInvalid)
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return fmt.Errorf("%w: the query string in the path cannot be parsed; use CallQuery", ErrInvalid)
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == ".." || segment == "." {
			return fmt.Errorf("%w: the path contains a segment of dots (. or ..); remove it", ErrInvalid)
		}
	}
	return nil
}

// Join returns the URL of a path under the base URL. The query is added to the query of the
// path and overrides it.
func Join(base *url.URL, path string, query url.Values) (*url.URL, error) {
	ref, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	u := *base
	u.Path = base.Path + ref.Path
	u.RawPath = base.EscapedPath() + ref.EscapedPath()
	u.RawQuery = merged(ref, query)
	return &u, nil
}

func merged(ref *url.URL, query url.Values) string {
	q := ref.Query()
	maps.Copy(q, query)
	return q.Encode()
}

// Target is like [Join], but also accepts a whole URL at a pinned origin, such as one that
// the platform has returned. The path of such a URL is not put under the path of the base
// URL.
func (set Set) Target(base *url.URL, target string, query url.Values) (*url.URL, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" || (!ascii.EqualFold(u.Scheme, "https") && !ascii.EqualFold(u.Scheme, "http")) {
		return Join(base, target, query)
	}
	if !set.Has(u) {
		return nil, set.Foreign(u)
	}
	if u.User != nil {
		return nil, fmt.Errorf("%w: the URL has user information; remove user:password@, because the SDK adds the credential", ErrInvalid)
	}
	if err := checkParts(target, u); err != nil {
		return nil, err
	}
	o := Of(u)
	u.Scheme, u.Host = o.scheme, o.host
	// A signature may cover the query, so it stays unchanged.
	if len(query) > 0 || strings.ContainsFunc(u.RawQuery, func(r rune) bool { return r <= ' ' || r > '~' }) {
		u.RawQuery = merged(u, query)
	}
	return u, nil
}
