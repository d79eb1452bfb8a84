package secret

import (
	"fmt"
	"strings"
)

// minKeyLen is the length from which a path without a separator or a dot is
// treated as a key. Production keys have no prefix by which they could be
// recognized.
const minKeyLen = 20

// QuotePath quotes the path of a file for an error, with escapes for invisible
// characters. It does not show a key that was mistaken for a path.
func QuotePath(path string) string {
	if len(path) >= minKeyLen && !strings.ContainsAny(path, `/\.`) {
		return Placeholder
	}
	if len(path) > MaxText {
		path = strings.ToValidUTF8(path[:MaxText], "") + ellipsis
	}
	if redacted := RedactPatterns(path); redacted != path {
		return Line(redacted)
	}
	return fmt.Sprintf("%q", path)
}
