package evidence_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/internal/evidence"
)

func TestPathOfFoldsIDs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 33)
	for name, c := range map[string]struct {
		a, b string
		same bool
	}{
		"the same":            {"/api/v1/agents", "/api/v1/agents", true},
		"numbers":             {"/api/v1/agents/17", "/api/v1/agents/4711", true},
		"UUIDs":               {"/agents/7f1c9a52-8d3e-4c6b-9f0a-2e5d7b1c4a90", "/agents/00000000-0000-4000-8000-000000000001", true},
		"prefixed IDs":        {"/agents/agt_1a", "/agents/agt_2b", true},
		"long segments":       {"/agents/" + long, "/agents/" + strings.Repeat("y", 40), true},
		"IDs in the middle":   {"/agents/1/keys", "/agents/2/keys", true},
		"ID and name":         {"/agents/1", "/agents/pending", false},
		"names":               {"/agents/pending", "/agents/active", false},
		"names of 32 letters": {"/agents/" + strings.Repeat("x", 32), "/agents/" + strings.Repeat("y", 32), false},
		"versions":            {"/api/v1/agents", "/api/v2/agents", false},
		"v is not a version":  {"/api/v/agents", "/api/w/agents", false},
		"list and item":       {"/agents", "/agents/1", false},
		"item and its keys":   {"/agents/1", "/agents/1/keys", false},
		"split differently":   {"/ab/c", "/a/bc", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := evidence.PathOf(http.MethodGet, c.a), evidence.PathOf(http.MethodGet, c.b)
			assert.Equal(t, c.same, a == b)
			assert.NotEqual(t, a, evidence.PathOf(http.MethodPost, c.a), "the method counts")
		})
	}
}

func TestPathOfDoesNotAllocate(t *testing.T) { //nolint:paralleltest // counts allocations
	path := "/api/v1/agents/7f1c9a52-8d3e-4c6b-9f0a-2e5d7b1c4a90/credentials/" + strings.Repeat("x", 100)
	assert.Zero(t, testing.AllocsPerRun(100, func() { evidence.PathOf(http.MethodGet, path) }))
}

func FuzzPathOf(f *testing.F) {
	for _, path := range []string{"", "/", "//", "/a/1", "a", "/v1", "/v", "/é"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		one, two := evidence.PathOf(http.MethodGet, path+"/1"), evidence.PathOf(http.MethodGet, path+"/2")
		if one != two {
			t.Error("the keys of two IDs differ")
		}
	})
}
