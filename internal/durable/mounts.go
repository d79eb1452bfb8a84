package durable

import (
	"bufio"
	"io"
	"strings"
)

// unescape undoes how /proc/self/mountinfo writes paths.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// isMounted reports whether a list in the format of /proc/self/mountinfo has a mount at
// path. The fifth field of a line is where the mount is.
func isMounted(list io.Reader, path string) (bool, error) {
	lines := bufio.NewScanner(list)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && unescape.Replace(fields[4]) == path {
			return true, nil
		}
	}
	return false, lines.Err()
}
