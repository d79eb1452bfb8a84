package secret

import (
	"slices"
	"strings"
)

const (
	// minSecret is the length of the shortest secret that is searched for inside words.
	minSecret = 8
	// maxGram is how many consecutive characters of a secret are replaced.
	maxGram = 16
	// minEnd is how many characters of the beginning of a secret are replaced at the end of a
	// text.
	minEnd = 8
)

// A needle is a secret in the form in which it is searched for.
type needle struct {
	text string
	// gram is the length of the parts that are searched for: the length of the secret, but at
	// most maxGram.
	gram   int
	minEnd int
	grams  map[string]struct{}
	// pairs has a bit for the first two characters of each part. At most positions of a text,
	// this makes further comparisons unnecessary.
	pairs [1 << 16 / 64]uint64
}

// needles are sorted by length, the shortest first.
type needles []*needle

// newNeedles returns the needles of the secrets, and of their forms without the escapes that
// they seem to contain, because the escapes in the searched text are removed, too.
func newNeedles(secrets []string) (out needles) {
	add := func(form string) {
		if form != "" && !slices.ContainsFunc(out, func(n *needle) bool { return n.text == form }) {
			out = append(out, newNeedle(form))
		}
	}
	for _, s := range secrets {
		add(s)
		for _, decode := range []unescape{percentEscape, backslashEscape, htmlEntity, anyEscape} {
			in := &stream{text: []byte(s)}
			for range maxUnescape {
				plain, changed := new(redaction).unescaped(in, decode)
				if !changed {
					break
				}
				if in = &plain; len(in.text) >= minSecret {
					add(string(in.text))
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b *needle) int { return len(a.text) - len(b.text) })
	return out
}

// in reports whether text contains one of the needles unchanged.
func (n needles) in(text string) bool {
	return slices.ContainsFunc(n, func(n *needle) bool { return strings.Contains(text, n.text) })
}

func newNeedle(s string) *needle {
	n := &needle{text: s, gram: min(len(s), maxGram), minEnd: max(minEnd, len(publicPrefix(s))+minEnd/2)}
	if n.gram < minSecret {
		return n
	}
	n.grams = make(map[string]struct{}, len(s)-n.gram+1)
	for i := range len(s) - n.gram + 1 {
		n.grams[s[i:i+n.gram]] = struct{}{}
		pair := int(s[i])<<8 | int(s[i+1])
		n.pairs[pair/64] |= 1 << (pair % 64)
	}
	return n
}

// publicPrefix is the part of a secret that says what it is, such as "sk_sandbox_". Texts may
// contain it.
func publicPrefix(s string) string {
	if Mark(s) != "" {
		return s[:strings.Index(s, sandboxMark)+len(sandboxMark)]
	}
	for _, p := range []string{"sk_live_", "sk_", userTokenPrefix} {
		if strings.HasPrefix(s, p) {
			return p
		}
	}
	return ""
}

// mayBegin reports whether a part may begin with a and b.
func (n *needle) mayBegin(a, b byte) bool {
	pair := int(a)<<8 | int(b)
	return n.pairs[pair/64]&(1<<(pair%64)) != 0
}

// has reports whether the secret contains part. The length of part must be gram.
func (n *needle) has(part []byte) bool {
	_, ok := n.grams[string(part)]
	return ok
}
