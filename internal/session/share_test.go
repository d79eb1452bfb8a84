package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// refusing is a platform that refuses every exchange.
type refusing struct{ err error }

func (p refusing) Authenticate(context.Context, string, secret.Credential, bool) (*wire.Answer, error) {
	return nil, p.err
}
func (p refusing) SessionDead(context.Context, secret.Credential, bool) bool { return false }
func (p refusing) KeyDead(context.Context, secret.Credential) bool           { return false }
func (p refusing) RetryAt(error) (time.Time, bool)                           { return time.Time{}, false }

func TestOnlyKeyRefusalIsSharedAsRefusal(t *testing.T) {
	t.Parallel()
	other := errors.New("server error")
	for err, refused := range map[error]bool{
		other: false, wire.ErrUnauthorized: false, &RefusedError{Err: wire.ErrUnauthorized}: true,
	} {
		s := New(Config{Platform: refusing{err}})
		var rec record.Session
		s.pause(&rec, err)
		shared := pausedBy(rec, rec.NotBefore)
		assert.Equal(t, refused, errors.Is(shared, wire.ErrUnauthorized), "%v", err)
		require.NotErrorIs(t, shared, wire.ErrRouteNotFound)
		assert.False(t, rec.Locked)
	}
}
