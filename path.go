package agrenting

import (
	"fmt"
	"maps"
	"net/url"
	"strings"
)

// checkPath refuses paths that would lead elsewhere than they seem to.
func checkPath(path string) error {
	_, err := parsePath(path)
	return err
}

func parsePath(path string) (*url.URL, error) {
	const hint = "a path is absolute and on the platform, such as /api/v1/agents"
	u, err := url.Parse(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: the path cannot be parsed; %s", ErrInvalidOption, hint)
	case u.Scheme != "" || u.Host != "" || u.User != nil || strings.HasPrefix(path, "//"):
		return nil, fmt.Errorf("%w: the path names a host; %s", ErrForeignOrigin, hint)
	case !strings.HasPrefix(path, "/"):
		return nil, fmt.Errorf("%w: the path does not begin with a slash; %s", ErrInvalidOption, hint)
	case u.Fragment != "" || strings.Contains(path, "#"):
		return nil, fmt.Errorf("%w: the path has a fragment; escape # as %%23", ErrInvalidOption)
	case strings.Contains(u.Path, "\\"):
		return nil, fmt.Errorf("%w: the path has a backslash; %s", ErrInvalidOption, hint)
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return nil, fmt.Errorf("%w: the query string in the path cannot be parsed; use CallQuery", ErrInvalidOption)
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == ".." || segment == "." {
			return nil, fmt.Errorf("%w: the path has a segment of dots, which leads elsewhere", ErrInvalidOption)
		}
	}
	return u, nil
}

// url puts a path behind the base URL.
func (c *core) url(path string, query url.Values) (*url.URL, error) {
	ref, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	u := *c.base
	u.Path = c.base.Path + ref.Path
	u.RawPath = c.base.EscapedPath() + ref.EscapedPath()
	q := ref.Query()
	maps.Copy(q, query)
	u.RawQuery = q.Encode()
	return &u, nil
}
