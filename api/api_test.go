package api_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/api"
)

func TestDocumentIsTheCallersToChange(t *testing.T) {
	t.Parallel()
	for name, get := range map[string]func() []byte{"JSON": api.JSON, "YAML": api.YAML} {
		first := get()
		require.NotEmpty(t, first, name)
		clear(first)
		assert.NotZero(t, get()[0], name)
	}
}

func ExampleJSON() {
	var doc struct {
		OpenAPI string
		Info    struct{ Title string }
		Paths   map[string]any
	}
	if err := json.Unmarshal(api.JSON(), &doc); err != nil {
		panic(err)
	}
	_, found := doc.Paths["/api/v1/auth/authenticate"]
	fmt.Println(doc.OpenAPI, doc.Info.Title, found)
	// Output:
	// 3.1.0 Agrenting API true
}
