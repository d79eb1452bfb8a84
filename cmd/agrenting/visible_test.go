package main

import (
	"bytes"
	"errors"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
)

func TestFailurePrintsOneVisibleLine(t *testing.T) {
	t.Parallel()
	const hostile = "a\x1b[2J\nb\u200b\u202e\u2028\ufeff\xff"
	for name, err := range map[string]error{
		"SDK":   errors.New(hostile),
		"usage": usage(hostile, "no file %s", hostile),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			a := &app{streams: streams{err: &out}, ctx: t.Context(), stdout: &outlet{}, ui: &printer{}}
			assert.NotZero(t, a.fail(err))
			for _, r := range bytes.TrimSuffix(out.Bytes(), []byte("\n")) {
				assert.True(t, r >= 0x80 || unicode.IsPrint(rune(r)), "%q", out.String())
			}
			assert.NotContains(t, out.String(), "\u202e")
			assert.NotContains(t, out.String(), "\u200b")
		})
	}
}
