package record

import (
	"fmt"
	"strings"
)

// MaxName bounds the name of a record, namespaces included.
const MaxName = 63

// MaxSize bounds the data of a record in bytes.
const MaxSize = 64 << 10

// NameProblem returns what is wrong with the name of a record, in words that
// follow a noun, or "" if the name is valid.
func NameProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > MaxName:
		return fmt.Sprintf("has %d characters, and at most %d are allowed", len(name), MaxName)
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return fmt.Sprintf("%q has an empty label", name)
		case strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
			return fmt.Sprintf("%q has a character that is not a lowercase letter, a digit, a hyphen or a dot", name)
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Sprintf("%q has a label that begins or ends with a hyphen", name)
		}
	}
	return ""
}
