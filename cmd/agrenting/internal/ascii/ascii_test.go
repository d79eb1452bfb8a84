package ascii

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOnlyLettersOfASCIIAreFolded(t *testing.T) {
	t.Parallel()
	for a, b := range map[string]string{
		"": "", "localhost": "LOCALHOST", "aZ09[@`{": "Az09[@`{", "k\u017f\u212a": "K\u017f\u212a", "\xff": "\xff",
	} {
		assert.True(t, EqualFold(a, b), "%q and %q", a, b)
		assert.True(t, EqualFold(b, a), "%q and %q", a, b)
	}
	for a, b := range map[string]string{
		"localho\u017ft": "localhost", "\u212ay": "ky", "\u0130": "i", "\u0131": "i", "[": "{", "@": "`", "a": "aa", "\u00c4": "\u00e4",
		"\xff": "\ufffd", "a\u017f": "as\x00",
	} {
		assert.False(t, EqualFold(a, b), "%q and %q", a, b)
		assert.False(t, EqualFold(b, a), "%q and %q", a, b)
	}
	for in, want := range map[string]string{
		"": "", "ABCXYZ": "abcxyz", "[@`{09": "[@`{09", "LOCALHO\u017fT": "localho\u017ft", "\u212aEY": "\u212aey", "\u0130\u00c4": "\u0130\u00c4",
	} {
		assert.Equal(t, want, ToLower(in))
	}
}
