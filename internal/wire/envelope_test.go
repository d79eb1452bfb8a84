package wire

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDecodeFindsTheData(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		``: ``, "\n": ``, `null`: `null`, `[1]`: `[1]`, `{}`: `{}`, `"x"`: `"x"`, "\ufeff{}": `{}`,
		`{"data":[1],"meta":{}}`: `[1]`, `{"data":null}`: `null`, `{"meta":{}}`: ``, `{"errors":[]}`: ``, `{"id":1}`: `{"id":1}`,
	} {
		env, err := Decode([]byte(body))
		require.NoError(t, err, body)
		assert.Equal(t, want, string(env.Data), body)
	}
	for _, body := range []string{"<html>", "{", `{"data":1}x`} {
		_, err := Decode([]byte(body))
		require.ErrorIs(t, err, ErrNotJSON, body)
		assert.Equal(t, body, string(Data([]byte(body))), "the whole body")
	}
}

func TestProblemsReadsEveryShapeOfAnError(t *testing.T) {
	t.Parallel()
	for body, want := range map[string][]ErrorDetail{
		``:                                   nil,
		`{}`:                                 nil,
		`<html>away</html>`:                  nil,
		`{"data":{"message":"m"}}`:           nil,
		"upstream\nis away":                  {{Message: "upstream is away"}},
		`{"errors":["a",null,{"code":"C"}]}`: {{Message: "a"}, {Message: "an error that could not be read"}, {Code: "C"}},
		`{"errors":{"title":"t"}}`:           {{Message: "t"}},
		`{"error":"e","message":"m"}`:        {{Message: "e"}},
		`{"error":{"detail":"d"}}`:           {{Message: "d"}},
		`{"message":"m","code":"C"}`:         {{Code: "C", Message: "m"}},
		`{"errors":[{"message":"sent KEY-0123456789","field":"f","details":["KEY-0123456789"]}]}`: {
			{Message: "sent [redacted]", Field: "f", Details: json.RawMessage(`["[redacted]"]`)},
		},
	} {
		env, _ := Decode([]byte(body))
		got, more := env.Problems([]byte(body), "KEY-0123456789")
		assert.Equal(t, want, got, body)
		assert.Zero(t, more)
	}
}

func TestPaginationIgnoresUnreadableFields(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Pagination{
		`{}`: {},
		`{"total_count":5,"cursor":"c","has_more":true}`:       {TotalCount: 5, Cursor: "c", HasMore: true},
		`{"total_count":"5","cursor":null,"has_more":"true"}`:  {TotalCount: 5, HasMore: true},
		`{"total_count":{"approximate":5},"cursor":["c"]}`:     {},
		`{"total_count":1e99,"cursor":7,"has_more":1,"new":0}`: {Cursor: "7", HasMore: true},
	} {
		var p Pagination
		require.NoError(t, json.Unmarshal([]byte(text), &p), text)
		assert.Equal(t, want, p, text)
	}
	var p Pagination
	require.Error(t, json.Unmarshal([]byte(`[]`), &p))
}
