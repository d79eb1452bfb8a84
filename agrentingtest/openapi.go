package agrentingtest

import (
	"encoding/json"
	"net/http"

	"github.com/agrenting/agrenting-go/api"
)

// describe serves the description of the API, to anybody and without an
// envelope. The platform documents the path; its own document is not at hand.
func describe(*exchange) (reply, *failure) {
	return reply{status: http.StatusOK, flat: json.RawMessage(api.JSON())}, nil
}
