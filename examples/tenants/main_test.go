package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTenantsShareConnections(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-tenants", "50"}, &out))
	assert.Regexp(t, `^50 clients, about -?\d+ bytes each, -?\d+ goroutines more
50 requests over the shared connections, in .*
one client is closed, and the others keep the connections
$`, out.String())
}

func TestInterruptEndsRequests(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	require.ErrorIs(t, run(ctx, nil, &bytes.Buffer{}), context.Canceled)
}

func TestArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	require.Error(t, run(t.Context(), []string{"-tenants", "1"}, &bytes.Buffer{}))
	require.Error(t, run(t.Context(), []string{"-nonsense"}, &bytes.Buffer{}))
	require.NoError(t, run(t.Context(), []string{"-h"}, &bytes.Buffer{}))
}
