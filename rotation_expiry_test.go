package agrenting

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

// saying is a transport that changes what the platform says of a key that it has
// rotated.
func saying(base http.RoundTripper, change func(key map[string]any)) http.RoundTripper {
	return tripFunc(func(req *http.Request) (*http.Response, error) {
		resp, err := base.RoundTrip(req)
		if err != nil || !strings.HasSuffix(req.URL.Path, "/rotate-key") || resp.StatusCode >= 300 {
			return resp, err
		}
		defer resp.Body.Close()
		var body struct {
			Data map[string]any `json:"data"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			return nil, err
		}
		change(body.Data)
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		resp.Header.Del("Content-Length")
		return resp, nil
	})
}

// endingAt has keys say that they end then.
func endingAt(text string) func(map[string]any) {
	return func(key map[string]any) { key["expires_at"] = text }
}

// livingFor has keys say that they live for d.
func livingFor(d time.Duration) func(map[string]any) {
	return func(key map[string]any) {
		text, _ := key["created_at"].(string)
		at, _ := time.Parse(time.RFC3339, text)
		key["expires_at"] = at.Add(d).Format(time.RFC3339)
	}
}

// unborn has keys say nothing of when they were created.
func unborn(then func(map[string]any)) func(map[string]any) {
	return func(key map[string]any) { then(key); delete(key, "created_at") }
}

func TestAKeyIsNotRotatedAllTheTimeWhateverItsEndIsSaidToBe(t *testing.T) {
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
		"its beginning":                        {key: livingFor(0), within: day, most: 1},
		"a moment later":                       {key: livingFor(time.Second), within: time.Hour, most: 70},
		"a day later, clocks agree":            {key: livingFor(day), within: 7 * day, most: 10},
		"a day later, the platform is behind":  {skew: -30 * time.Hour, key: livingFor(day), within: 7 * day, most: 10},
		"a day later, it is almost as much":    {skew: -18 * time.Hour, key: livingFor(day), within: 7 * day, most: 10},
		"a day later, it says no beginning":    {skew: -30 * time.Hour, key: unborn(livingFor(day)), within: 7 * day, most: 10},
		"a day later, the platform is ahead":   {skew: 30 * time.Hour, key: livingFor(day), within: 7 * day, most: 10},
		"none, and it is due every day":        {skew: -30 * time.Hour, every: day, key: func(map[string]any) {}, within: 7 * day, most: 10},
		"none, the platform is a year behind":  {skew: -365 * day, key: func(map[string]any) {}, within: 7 * day, most: 1},
		"a year later, it is as much behind":   {skew: -365 * day, key: livingFor(365 * day), within: 7 * day, most: 1},
		"a day later, the platform is decades": {skew: -30 * 365 * day, key: livingFor(day), within: 7 * day, most: 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newRotationWorld(t, agrentingtest.WithClockSkew(tc.skew))
				store := MemoryStore()
				c := w.client(store, RotationPolicy{Strategy: InPlace, Every: tc.every}, WithTransport(saying(w.srv.Transport(), tc.key)))
				require.NoError(t, w.call(c))
				_, err := c.Rotate(t.Context())
				require.NoError(t, err)
				for n := time.Duration(0); n < tc.within; n += tc.within / 100 {
					require.NoError(t, w.call(c))
					advance(tc.within / 100)
					require.LessOrEqual(t, w.srv.Count(routeRotate), tc.most)
				}
				if tc.most == 10 {
					assert.GreaterOrEqual(t, w.srv.Count(routeRotate), 7, "before each end")
				}
				require.NoError(t, c.Close())
			})
		})
	}
}
