package wire

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNewBaseReturnsTransportOfItsOwn(t *testing.T) {
	t.Parallel()
	std, ok := http.DefaultTransport.(*http.Transport)
	require.True(t, ok)
	base := NewBase()
	assert.NotSame(t, std, base)
	assert.NotSame(t, base, NewBase())
	assert.Equal(t, idleConns, base.MaxIdleConnsPerHost)
	assert.Equal(t, std.MaxIdleConns, base.MaxIdleConns)
	assert.Equal(t, std.IdleConnTimeout, base.IdleConnTimeout)
	assert.True(t, base.ForceAttemptHTTP2)
	assert.Zero(t, std.MaxIdleConnsPerHost, "nobody else's transport is changed")
}
