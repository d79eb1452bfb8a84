package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNoRequestFails(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	failed, err := run(t.Context(), &out, 700*time.Millisecond)
	t.Log("\n" + out.String())
	require.NoError(t, err)
	assert.Zero(t, failed)
	assert.Contains(t, out.String(), "; 0 failed")
	assert.Equal(t, 5, strings.Count(out.String(), "has rotated the key"))
}

func TestAnInterruptEndsItCleanly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var out strings.Builder
	failed, err := run(ctx, &out, time.Hour)
	require.NoError(t, err)
	assert.Zero(t, failed)
	assert.Contains(t, out.String(), "interrupted")
}
