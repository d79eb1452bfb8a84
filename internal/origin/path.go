package origin

import (
	"fmt"
	"maps"
	"net/url"
	"strings"
)

// CheckPath refuses paths that would not lead where they seem to, such as those with a
// host or with dot segments.
func CheckPath(path string) error {
	_, err := parsePath(path)
	return err
}

func parsePath(path string) (*url.URL, error) {
	const hint = "a path is absolute and on the platform, such as /api/v1/agents"
	u, err := url.Parse(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the path cannot be parsed; %s", ErrInvalid, hint)
	case u.Scheme != "" || u.Host != "" || u.User != nil || strings.HasPrefix(path, "//"):
		return nil, fmt.Errorf("%w: the path names a host; %s", ErrForeign, hint)
	case !strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("%w: the path does not begin with a slash; %s", ErrInvalid, hint)
	case u.Fragment != "" || strings.Contains(path, "#"):
		return nil, fmt.Errorf("%w: the path has a fragment; escape # as %%23", ErrInvalid)
	case strings.Contains(u.Path, "\\"):
		return nil, fmt.Errorf("%w: the path has a backslash; %s", ErrInvalid, hint)
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return nil, fmt.Errorf("%w: the query string in the path cannot be parsed; use CallQuery", ErrInvalid)
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == ".." || segment == "." {
			return nil, fmt.Errorf("%w: the path has a segment of dots, which leads elsewhere", ErrInvalid)
		}
	}
	return u, nil
}

// Join returns the URL of a path under the base URL. The query is added to that of the
// path and wins over it.
func Join(base *url.URL, path string, query url.Values) (*url.URL, error) {
	ref, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	u := *base
	u.Path = base.Path + ref.Path
	u.RawPath = base.EscapedPath() + ref.EscapedPath()
	q := ref.Query()
	maps.Copy(q, query)
	u.RawQuery = q.Encode()
	return &u, nil
}
