package secret

import "fmt"

// MaxLen bounds a secret in bytes. Servers commonly refuse a request header of
// more than 8 KiB, and credentials are much shorter.
const MaxLen = 4096

// enclosures never surround a secret. They come from a line of a .env file or
// of YAML, from JSON, or from a placeholder in documentation.
var enclosures = []struct{ first, last byte }{
	{'"', '"'}, {'\'', '\''}, {'`', '`'}, {'<', '>'}, {'{', '}'},
}

// Problem returns what is wrong with a secret and how to fix it, in words that
// follow a noun, or "" if the secret can be sent. It shows only the length of
// the secret and the position of the problem.
func Problem(s string) string {
	switch {
	case s == "":
		return "is empty; check that the variable or file that it comes from is set and not empty"
	case len(s) > MaxLen:
		return fmt.Sprintf("is %d bytes long, and at most %d are accepted; check that it is only the credential, not a whole file",
			len(s), MaxLen)
	}

	for i := range len(s) {
		var problem, fix string

		switch b := s[i]; {
		case b == '\n' || b == '\r':
			problem, fix = "a line break", "pass only the credential, on one line"
		case b == ' ' || b == '\t' || b == '\v' || b == '\f':
			problem, fix = "white space", "pass only the credential, without a scheme such as Bearer"
		case b < ' ' || b == 0x7f:
			problem, fix = "a control character", "copy the credential again, as plain text"
		case b > 0x7f:
			problem, fix = "not an ASCII character", "copy the credential again, as plain text without typographic characters"
		default:
			continue
		}

		return fmt.Sprintf("has %s at byte %d of %d; %s", problem, i+1, len(s), fix)
	}

	for _, e := range enclosures {
		if len(s) > 1 && s[0] == e.first && s[len(s)-1] == e.last {
			return fmt.Sprintf("is enclosed in %c and %c, %d bytes in all; remove them",
				e.first, e.last, len(s))
		}
	}

	return ""
}
