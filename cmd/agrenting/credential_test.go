package main

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

func TestCredentialReplacedDuringRead(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		replaced int // times
		fails    bool
	}{
		"not replaced": {0, false}, "once": {1, false}, "each time": {fillAttempts, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			generation, left := 1, c.replaced
			secret := func() string { return "made-up-0123456789abcde" + strconv.Itoa(generation) }
			var live jsonLive
			cred, err := live.fill(
				func() (http.Header, error) { return http.Header{"X-Api-Key": {secret()}, "X-Agent-Id": {"a"}}, nil },
				func() (agrenting.Credential, error) {
					if left > 0 {
						left--
						generation++
					}
					return agrenting.APIKey(secret()), nil
				},
			)
			if c.fails {
				require.ErrorContains(t, err, "the credential was replaced each time it was read")
				assert.Empty(t, live.Secret)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, secret(), cred.Reveal())
			assert.Equal(t, jsonLive{Header: "X-Api-Key", Value: secret(), Secret: secret()}, live)
		})
	}
}
