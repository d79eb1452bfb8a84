package agrentingtest

import (
	"encoding/json"
	"net/http"

	"github.com/agrenting/agrenting-go/api"
)

// describe serves the OpenAPI document without an envelope and without
// authentication. The platform documents the path, but its own document is not
// available.
func describe(*exchange) (reply, *failure) {
	return reply{status: http.StatusOK, flat: json.RawMessage(api.JSON())}, nil
}
