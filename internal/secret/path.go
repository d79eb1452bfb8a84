package secret

import (
	"fmt"
	"strings"
)

// minKeyLen is the length from which a path without any separator or dot is
// taken for a key: production keys have no prefix to recognize them by.
const minKeyLen = 20

// QuotePath quotes a path of a file for an error, with escapes for invisible characters. A key that was taken for a path by
// mistake is not shown.
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
