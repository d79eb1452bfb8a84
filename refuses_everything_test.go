package agrenting_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// TestPlatformRefusingEverythingCausesFewExchanges sends requests one after the other to
// a platform that issues sessions and accepts none, in Verify neither.
func TestPlatformRefusingEverythingCausesFewExchanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var exchanges, calls atomic.Int64
		base := sdktest.RoundTripFunc(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/authenticate") {
				return sdktest.Reply(http.StatusOK, fmt.Sprintf(
					`{"data":{"session_token":"session-%d","expires_at":"2999-01-01T00:00:00Z"}}`, exchanges.Add(1))), nil
			}
			calls.Add(1)
			return sdktest.Reply(http.StatusUnauthorized, `{}`), nil
		})
		c := sdktest.Keyed(t, base, agrenting.WithSession())
		began := time.Now()
		for i := range 200 {
			_, err := c.Do(t.Context(), http.MethodGet, fmt.Sprintf("/x/%d", i), nil, nil)
			require.ErrorIs(t, err, agrenting.ErrUnauthorized)
		}
		assert.LessOrEqual(t, exchanges.Load(), int64(10), "exchanges")
		assert.LessOrEqual(t, calls.Load(), int64(1000), "calls")
		assert.Less(t, time.Since(began), 2*time.Minute)
	})
}
