package secret

import (
	"fmt"
	"strings"
)

// minKeyLen is the length from which a path without any separator or dot is
// taken for a key: production keys have no prefix to recognize them by.
const minKeyLen = 20

// QuotePath quotes a path for an error. A key that was taken for a path by
// mistake is not shown.
func QuotePath(path string) string {
	if redacted := RedactPatterns(path); redacted != path {
		return redacted
	}
	if len(path) >= minKeyLen && !strings.ContainsAny(path, `/\.`) {
		return Placeholder
	}
	return fmt.Sprintf("%q", path)
}
