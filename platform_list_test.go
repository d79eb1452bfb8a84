package agrenting

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/rotation"
)

func TestKeyListEndsWithoutRefusal(t *testing.T) {
	t.Parallel()
	cause := errors.New("shutting down")
	for name, tc := range map[string]struct {
		page    int // the context ends during this one
		item    string
		fetched int
		want    rotation.Outcome
	}{
		"before the first page": {0, `{"id":"k"}`, 0, rotation.Unknown},
		"between pages":         {2, `{"id":"k"}`, 2, rotation.Unknown},
		"empty pages":           {-1, "", 100, rotation.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			base := &recorder{then: func(n int, _ seen) *http.Response {
				if n == tc.page {
					cancel(cause)
				}
				return reply(http.StatusOK, `{"data":[`+tc.item+`],"meta":{"pagination":{"has_more":true,"cursor":"`+strconv.Itoa(n)+`"}}}`)
			}}
			c := clientOver(t, base, Static(APIKey(testKey)))
			if tc.page == 0 {
				cancel(cause)
			}
			keys, answer := platformCalls{c.core}.List(ctx, rotation.Caller{Credential: APIKey(testKey).c}, "6f1f1b0e-9d0f-4d39-8a51-94f9e0d4c7a1")
			assert.Empty(t, keys)
			assert.Equal(t, tc.want, answer.Outcome)
			require.Error(t, answer.Err)
			if tc.want == rotation.Unknown {
				require.ErrorIs(t, answer.Err, cause)
			}
			assert.Len(t, base.requests(), tc.fetched)
		})
	}
}
