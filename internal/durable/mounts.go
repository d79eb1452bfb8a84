package durable

import (
	"bufio"
	"io"
	"strings"
)

// unescape decodes paths in the form of /proc/self/mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// isMounted reports whether a list in the format of /proc/self/mountinfo contains a
// mount at path. The fifth field of each line is the path of the mount.
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
