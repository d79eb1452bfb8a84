package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRequestIssuesSecret(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/api/v1/auth/rotate-key":                                      true,
		"/api/v1/auth/rotate-key?x=1":                                  true,
		"/api/v1/auth/rotate%2Dkey":                                    true,
		"https://agrenting.com/api/v1/auth/rotate-key":                 true,
		"https://agrenting.com/api/v1/auth/rotate-key?x=1":             true,
		"https://example.com/tenant/api/v1/agents":                     true, // under the base URL's path
		"/api/v1/tasks":                                                false,
		"https://agrenting.com/api/v1/tasks?x=/api/v1/auth/rotate-key": false,
		"https://agrenting.com":                                        false,
		"":                                                             false,
		"%zz":                                                          false,
	} {
		c := requestCmd{Method: "post", Path: path}
		assert.Equal(t, want, c.issues(), path)
		c.Method = "GET"
		assert.False(t, c.issues(), path)
	}
}
