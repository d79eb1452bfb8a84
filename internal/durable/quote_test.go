package durable

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPathsAreQuotedForShells(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/var/lib/a-b_c.d": "/var/lib/a-b_c.d",
		"":                 "''",
		"/a b":             "'/a b'",
		"/it's":            `'/it'\''s'`,
		"/$(id)`x`;&*~":    "'/$(id)`x`;&*~'",
		"/grün":            "'/grün'",
		"/a\nb'\\":         `$'/a\012b\'\\'`,
		"/\x1b[31m":        `$'/\033[31m'`,
		"/\u202ex\u200b":   `$'/\342\200\256x\342\200\213'`,
		"/\xff":            `$'/\377'`,
	} {
		assert.Equal(t, want, quote(path))
	}
}
