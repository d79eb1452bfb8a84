package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/itchyny/gojq"
)

// newFilter compiles the expression of --jq. It has no access to files and to the
// environment, where credentials are.
func newFilter(expr string) (*gojq.Code, error) {
	const hint = "see https://jqlang.org/manual for the language"
	query, err := gojq.Parse(expr)
	if err != nil {
		where := ""
		if e, ok := errors.AsType[*gojq.ParseError](err); ok {
			before := expr[:max(0, min(len(expr), e.Offset-len(e.Token)))]
			where = fmt.Sprintf(" at character %d", utf8.RuneCountInString(before)+1)
		}
		return nil, usage(hint, "invalid --jq expression: %s%s", discreet(visible(err.Error())), where)
	}
	code, err := gojq.Compile(query)
	if err != nil {
		return nil, usage(hint, "invalid --jq expression: %s", discreet(visible(err.Error())))
	}
	return code, nil
}

// printsNoJSON are the commands without JSON that --jq could filter.
var printsNoJSON = map[string]bool{"exec": true, "help": true, "completion": true, "__complete": true}

// useFilter compiles the expression of --jq, if there is one. It implies --json. Without
// --json, request prints the data of the response as JSON, and the filter gets that.
func (a *app) useFilter(expr *string, command string) error {
	if expr == nil {
		return nil
	}
	a.ui.json = true
	if printsNoJSON[command] {
		return usage("leave out --jq", "agrenting %s prints no JSON that --jq could filter", command)
	}
	a.JSON = a.JSON || command != "request"
	var err error
	a.filter, err = newFilter(*expr)
	return err
}

// encode prints v on standard output as JSON, through the filter if there is one. The run
// reports the error of a filter at its end.
func (a *app) encode(v any) {
	if a.filter == nil {
		encode(a.out, v)
		return
	}
	err := a.filtered(v)
	if err == nil || a.ctx.Err() != nil {
		a.filterErr = err
		return
	}
	text := misfit(err)
	if c, ok := a.command.(interface{ shows() bool }); ok && c.shows() {
		// The secret exists nowhere else.
		encode(a.out, v)
		text = "all of the output was printed instead"
	}
	a.filterErr = failure("", "--jq failed: %s", text)
}

// wrongType begins the two most frequent errors of a filter, without the value behind the type.
var wrongType = regexp.MustCompile(
	`^(cannot iterate over|expected an (object|array) but got): (null|boolean|number|string|array|object)\b`)

// misfit describes the error of a filter without quoting it: the output may have a secret in it,
// and gojq quotes values.
func misfit(err error) string {
	const text = "the filter does not fit the output"
	if kind := wrongType.FindString(err.Error()); kind != "" {
		return text + ": " + kind
	}
	return text
}

// filterBody prints a body of any kind through the filter.
func (a *app) filterBody(body []byte) error {
	if !json.Valid(body) {
		_, _ = a.out.Write(body)
		return failure("leave out --jq", "the body is not JSON, and was printed unchanged")
	}
	a.encode(json.RawMessage(body))
	return nil
}

// filtered prints the results of the filter, one per line: strings unquoted, anything else
// as JSON.
func (a *app) filtered(v any) error {
	var b bytes.Buffer
	encode(&b, v)
	var input any
	d := json.NewDecoder(&b)
	d.UseNumber() // large ones stay exact
	if err := d.Decode(&input); err != nil {
		return err
	}
	terminal := isTerminal(a.out)
	results := a.filter.RunWithContext(a.ctx, input)
	for a.stdout.failed() == nil {
		result, ok := results.Next()
		if !ok {
			return nil
		}
		switch r := result.(type) {
		case *gojq.HaltError:
			if r.Value() == nil {
				return nil
			}
			return r
		case error:
			return r
		case string:
			if terminal {
				r = visibleLines(r)
			}
			a.ui.line("%s", r)
		default:
			text, err := gojq.Marshal(r)
			if err != nil {
				return err
			}
			a.ui.line("%s", text)
		}
	}
	return nil
}

// visibleLines is visible, except that line breaks and tabs stay.
func visibleLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		cells := strings.Split(line, "\t")
		for j, cell := range cells {
			cells[j] = visible(cell)
		}
		lines[i] = strings.Join(cells, "\t")
	}
	return strings.Join(lines, "\n")
}
