package agrenting

import "strings"

// routeOf replaces the IDs in a path: UUIDs, DIDs, and other segments of eight or more
// characters that have a digit.
func routeOf(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "did:") || (len(s) >= 8 && strings.ContainsAny(s, "0123456789")) {
			segments[i] = "{id}"
		}
	}
	return strings.Join(segments, "/")
}
