package agrentingtest_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/api"
)

func TestDescriptionIsServedToAnybody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []caller{w.with(), w.asKey(), w.caller.key("unknown"), w.bearer("unknown")} {
		a := c.get("/api/v1/openapi.json")
		assert.Equal(t, http.StatusOK, a.status)
		assert.Equal(t, "application/json; charset=utf-8", a.header.Get("Content-Type"))
		assert.JSONEq(t, string(api.JSON()), a.raw)
	}
	assert.Equal(t, 4, w.Count("GET /api/v1/openapi.json"))
}

func TestDescriptionIsLimitedLikeTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithRateLimits(agrentingtest.RateLimits{General: 1}))
	assert.Equal(t, http.StatusOK, w.get("/api/v1/openapi.json").status)
	assert.Equal(t, http.StatusTooManyRequests, w.get("/api/v1/openapi.json").status)
}
