package wire

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReadHeaderIgnoresMalformedValues(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sunset := time.Date(2026, 10, 31, 23, 59, 59, 0, time.UTC)
	for name, tc := range map[string]struct {
		header http.Header
		want   Header
	}{
		"none": {nil, Header{}},
		"all": {
			http.Header{
				"X-Request-Id": {"r1"}, "Request-Id": {"r2"}, "X-Ratelimit-Limit": {"100"}, "X-Ratelimit-Remaining": {"0"},
				"Retry-After": {"7"}, "Sunset": {"Sat, 31 Oct 2026 23:59:59 GMT"},
			},
			Header{RequestID: "r1", Rate: Rate{Known: true, Limit: 100, RetryAfter: 7 * time.Second}, Sunset: sunset},
		},
		"other request ID": {http.Header{"Request-Id": {"r2"}}, Header{RequestID: "r2"}},
		"half a rate":      {http.Header{"X-Ratelimit-Limit": {"100"}}, Header{Rate: Rate{Limit: 100}}},
		"malformed":        {http.Header{"Retry-After": {"soon"}, "Sunset": {"soon"}}, Header{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ReadHeader(tc.header, now)
			assert.True(t, tc.want.Sunset.Equal(got.Sunset))
			got.Sunset = tc.want.Sunset
			assert.Equal(t, tc.want, got)
		})
	}
}

// parsed returns the headers of a response as net/http reads them from a connection.
func parsed(t *testing.T, lines ...string) http.Header {
	t.Helper()
	text := "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.Header
}

func TestDateIgnoresForeignResponses(t *testing.T) {
	t.Parallel()
	const sent = "Fri, 02 Jan 2026 03:04:05 GMT"
	for name, tc := range map[string]struct {
		header []string
		known  bool
	}{
		"none":              {nil, false},
		"one":               {[]string{"Date: " + sent}, true},
		"lower case":        {[]string{"date: " + sent}, true},
		"RFC 850":           {[]string{"Date: Friday, 02-Jan-26 03:04:05 GMT"}, true},
		"asctime":           {[]string{"Date: Fri Jan  2 03:04:05 2026"}, true},
		"twice":             {[]string{"Date: " + sent, "date: " + sent}, true},
		"two dates":         {[]string{"Date: " + sent, "Date: Fri, 02 Jan 2026 03:04:06 GMT"}, false},
		"empty":             {[]string{"Date:"}, false},
		"malformed":         {[]string{"Date: today"}, false},
		"another zone":      {[]string{"Date: Fri, 02 Jan 2026 03:04:05 +0000"}, false},
		"year 1":            {[]string{"Date: Mon, 01 Jan 0001 00:00:00 GMT"}, false},
		"stored":            {[]string{"Date: " + sent, "Age: 3600"}, false},
		"just stored":       {[]string{"Date: " + sent, "Age: 0"}, false},
		"stored, lower":     {[]string{"date: " + sent, "age: 1"}, false},
		"malformed age":     {[]string{"Date: " + sent, "Age: old"}, false},
		"empty age":         {[]string{"Date: " + sent, "Age:"}, false},
		"age and no date":   {[]string{"Age: 1"}, false},
		"expiry is not age": {[]string{"Date: " + sent, "Expires: " + sent, "Cache-Control: max-age=60"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := time.Time{}
			if tc.known {
				want = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			}
			assert.True(t, want.Equal(Date(parsed(t, tc.header...))))
			assert.True(t, want.Equal((&Answer{Header: parsed(t, tc.header...)}).Sent()))
		})
	}
}

func TestRetryAfterReadsDatesByThePlatformsClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 700_000_000, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).UTC().Format(http.TimeFormat) }
	const ahead = 10 * time.Minute
	for name, tc := range map[string]struct {
		header []string
		want   time.Duration
	}{
		"same clock":            {[]string{"Date: " + at(0), "Retry-After: " + at(3*time.Second)}, 3 * time.Second},
		"platform ahead":        {[]string{"Date: " + at(ahead), "Retry-After: " + at(ahead+3*time.Second)}, 3 * time.Second},
		"platform behind":       {[]string{"Date: " + at(-ahead), "Retry-After: " + at(3*time.Second-ahead)}, 3 * time.Second},
		"days behind":           {[]string{"Date: " + at(-72*time.Hour), "Retry-After: " + at(time.Minute-72*time.Hour)}, time.Minute},
		"lower case":            {[]string{"date: " + at(ahead), "retry-after: " + at(ahead+3*time.Second)}, 3 * time.Second},
		"RFC 850":               {[]string{"Date: " + at(0), "Retry-After: Friday, 02-Jan-26 03:04:08 GMT"}, 3 * time.Second},
		"asctime":               {[]string{"Date: Fri Jan  2 03:04:05 2026", "Retry-After: Fri Jan  2 03:04:08 2026"}, 3 * time.Second},
		"the same second":       {[]string{"Date: " + at(ahead), "Retry-After: " + at(ahead)}, 0},
		"past":                  {[]string{"Date: " + at(ahead), "Retry-After: " + at(ahead-time.Minute)}, 0},
		"far":                   {[]string{"Date: " + at(ahead), "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"}, maxWait},
		"no date":               {[]string{"Retry-After: " + at(3*time.Second)}, 2300 * time.Millisecond},
		"no date, past":         {[]string{"Retry-After: " + at(-time.Minute)}, 0},
		"malformed date":        {[]string{"Date: today", "Retry-After: " + at(3*time.Second)}, 2300 * time.Millisecond},
		"two dates":             {[]string{"Date: " + at(0), "Date: " + at(ahead), "Retry-After: " + at(3*time.Second)}, 2300 * time.Millisecond},
		"stored":                {[]string{"Date: " + at(-time.Hour), "Age: 3600", "Retry-After: " + at(3*time.Second)}, 3 * time.Second},
		"stored, ahead":         {[]string{"Date: " + at(ahead-time.Hour), "Age: 3600", "Retry-After: " + at(ahead+3*time.Second)}, 3 * time.Second},
		"stored, behind":        {[]string{"date: " + at(-ahead-time.Minute), "age: 60", "Retry-After: " + at(3*time.Second-ahead)}, 3 * time.Second},
		"stored, date replaced": {[]string{"Date: " + at(0), "Age: 3600", "Retry-After: " + at(3*time.Second)}, 3 * time.Second},
		"just stored":           {[]string{"Date: " + at(ahead), "Age: 0", "Retry-After: " + at(ahead+3*time.Second)}, 3 * time.Second},
		"huge age":              {[]string{"Date: " + at(-time.Hour), "Age: 99999999999999999999", "Retry-After: " + at(3*time.Second)}, 0},
		"malformed age":         {[]string{"Date: " + at(-time.Hour), "Age: old", "Retry-After: " + at(3*time.Second)}, 2300 * time.Millisecond},
		"negative age":          {[]string{"Date: " + at(-time.Hour), "Age: -5", "Retry-After: " + at(3*time.Second)}, 2300 * time.Millisecond},
		"seconds":               {[]string{"Date: " + at(ahead), "Retry-After: 7"}, 7 * time.Second},
		"seconds, stored":       {[]string{"Date: " + at(-time.Hour), "Age: 3600", "Retry-After: 7"}, 7 * time.Second},
		"both forms":            {[]string{"Date: " + at(ahead), "Retry-After: 2", "Retry-After: " + at(ahead+3*time.Second)}, 3 * time.Second},
		"both forms, reversed":  {[]string{"Date: " + at(ahead), "Retry-After: " + at(ahead+3*time.Second), "retry-after: 20"}, 20 * time.Second},
		"one of two malformed":  {[]string{"Retry-After: soon", "Retry-After: 2"}, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := parsed(t, tc.header...)
			got, ok := RetryAfter(h, now)
			assert.True(t, ok)
			assert.Equal(t, tc.want, got)
			assert.Equal(t, tc.want, ReadHeader(h, now).Rate.RetryAfter)
		})
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{
		"", "0", "1", "7", " 60 ", "-1", "+5", "1.5", "1e3", "0x10", "86400", "9223372036854775807", "9223372036854775808",
		"99999999999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "Friday, 31-Dec-99 23:59:59 GMT",
		"Fri Dec 31 23:59:59 1999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon", "7, 8", "7\r\n8", "٧",
	} {
		f.Add(v, "", "")
		f.Add(v, "Fri, 31 Dec 1999 23:59:56 GMT", "")
		f.Add(v, "Friday, 31-Dec-99 23:59:59 GMT", v)
		f.Add("Fri, 31 Dec 1999 23:59:59 GMT", v, "0")
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, after, sent, age string) {
		h := http.Header{"Retry-After": {after}, "Date": {sent}, "Age": {age}}
		d, ok := RetryAfter(h, now)
		assert.GreaterOrEqual(t, d, time.Duration(0))
		assert.LessOrEqual(t, d, maxWait)
		if !ok {
			assert.Zero(t, d)
		}
		assert.True(t, Date(h).IsZero(), "there is an Age")

		h.Del("Age")
		d, ok = RetryAfter(h, now)
		other, sameOK := RetryAfter(h, now.Add(time.Hour))
		assert.Equal(t, ok, sameOK)
		if !Date(h).IsZero() {
			assert.Equal(t, d, other, "the local clock does not matter")
		}
	})
}
