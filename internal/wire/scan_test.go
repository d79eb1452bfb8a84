package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var scanned = []string{
	`{}`, ` { } `, `{"a":1}`, `{"a" : "x\"}" , "b":[1,{"c":"]"}],"a":null,"":true}`, `{"\u0061\"b":-1.5e3}`,
	`{"a":{"b":{}},"c":[[],[[]]]}`, "{\"a\":\t1\n,\r\"b\":2 }", `{"a":"\\"}`, `[]`, `[ ]`, `[1]`, `[1,"a,b",[2,3],{"x":[4]},null]`, "[\n1 , 2\n]",
}

func checkScan(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		return
	}
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &object) == nil && object != nil {
		got := map[string]json.RawMessage{}
		members([]byte(text), func(name []byte, value json.RawMessage) { got[string(name)] = value })
		assert.Equal(t, object, got, text)
	}
	var array []json.RawMessage
	if json.Unmarshal([]byte(text), &array) == nil && array != nil {
		first, more := elements([]byte(text), 2)
		require.Equal(t, len(array), len(first)+more, text)
		for i := range first {
			assert.Equal(t, array[i], first[i], text)
		}
	}
}

func TestScannerMatchesJSONDecoder(t *testing.T) {
	t.Parallel()
	for _, text := range scanned {
		checkScan(t, strings.TrimSpace(text))
	}
}

func FuzzScannerMatchesJSONDecoder(f *testing.F) {
	for _, text := range scanned {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkScan(t, strings.TrimSpace(text)) })
}
