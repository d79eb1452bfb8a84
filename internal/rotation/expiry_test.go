package rotation_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/internal/sdktest"
)

// endingAt has keys say that they end then.
func endingAt(text string) func(map[string]any) {
	return func(key map[string]any) { key["expires_at"] = text }
}

// unborn has keys say nothing of when they were created.
func unborn(then func(map[string]any)) func(map[string]any) {
	return func(key map[string]any) { then(key); delete(key, "created_at") }
}

func TestUnusualExpiryCausesFewRotations(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, tc := range map[string]struct {
		skew   time.Duration // of the platform's clock
		every  time.Duration
		key    func(map[string]any)
		within time.Duration
		most   int
	}{
		"far away":                             {key: endingAt("2060-12-31T23:59:59Z"), within: day, most: 1},
		"farther than a duration goes":         {key: endingAt("2399-12-31T23:59:59Z"), within: day, most: 1},
		"never, as some say it":                {key: endingAt("9999-12-31T23:59:59Z"), within: day, most: 1},
		"before its beginning":                 {key: endingAt("1999-12-31T23:59:59Z"), within: day, most: 1},
		"its beginning":                        {key: sdktest.LivingFor(0), within: day, most: 1},
		"a moment later":                       {key: sdktest.LivingFor(time.Second), within: time.Hour, most: 70},
		"a day later, clocks agree":            {key: sdktest.LivingFor(day), within: 7 * day, most: 10},
		"a day later, the platform is behind":  {skew: -30 * time.Hour, key: sdktest.LivingFor(day), within: 7 * day, most: 10},
		"a day later, it is almost as much":    {skew: -18 * time.Hour, key: sdktest.LivingFor(day), within: 7 * day, most: 10},
		"a day later, it says no beginning":    {skew: -30 * time.Hour, key: unborn(sdktest.LivingFor(day)), within: 7 * day, most: 10},
		"a day later, the platform is ahead":   {skew: 30 * time.Hour, key: sdktest.LivingFor(day), within: 7 * day, most: 10},
		"none, and it is due every day":        {skew: -30 * time.Hour, every: day, key: func(map[string]any) {}, within: 7 * day, most: 10},
		"none, the platform is a year behind":  {skew: -365 * day, key: func(map[string]any) {}, within: 7 * day, most: 1},
		"a year later, it is as much behind":   {skew: -365 * day, key: sdktest.LivingFor(365 * day), within: 7 * day, most: 1},
		"a day later, the platform is decades": {skew: -30 * 365 * day, key: sdktest.LivingFor(day), within: 7 * day, most: 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := sdktest.NewRotationWorld(t, agrentingtest.WithClockSkew(tc.skew))
				store := agrenting.MemoryStore()
				c := w.Client(store, agrenting.RotationPolicy{Strategy: agrenting.InPlace, Every: tc.every}, agrenting.WithTransport(sdktest.Saying(w.Server.Transport(), tc.key)))
				require.NoError(t, w.Call(c))
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				for n := time.Duration(0); n < tc.within; n += tc.within / 100 {
					require.NoError(t, w.Call(c))
					sdktest.Advance(tc.within / 100)
					require.LessOrEqual(t, w.Server.Count(sdktest.RouteRotate), tc.most)
				}
				if tc.most == 10 {
					assert.GreaterOrEqual(t, w.Server.Count(sdktest.RouteRotate), 7, "before each end")
				}
				require.NoError(t, c.Close())
			})
		})
	}
}
