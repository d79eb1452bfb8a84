package agrenting

import (
	"context"
	"net/http"
	"time"

	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// The files of rotations and of shared sessions use these names until they move to
// internal packages too.

func dateOf(h http.Header) time.Time                   { return wire.Date(h) }
func newUUID() string                                  { return wire.NewUUID() }
func panicked(who string, p any) error                 { return secret.PanicError(who, p) }
func safeText(s string) string                         { return secret.Clean(s) }
func sleep(ctx context.Context, d time.Duration) error { return renew.Sleep(ctx, d) }
func withoutSecrets(err error, secrets ...string) error {
	return secret.WithoutSecrets(err, secrets...)
}
