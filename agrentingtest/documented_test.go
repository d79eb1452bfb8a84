package agrentingtest_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
)

const guidePath = "../docs/testing.md"

// sectionOf returns the text of a document from a heading to the next.
func sectionOf(t *testing.T, path, heading string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	_, text, found := strings.Cut(string(b), "\n"+heading+"\n")
	require.True(t, found, heading)
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

var (
	routeRow  = regexp.MustCompile("(?m)^\\| `([A-Z]+ )(/[^`]*)` \\| ([^|]+) \\| ([^|]+) \\|$")
	sourceTag = regexp.MustCompile(`\b(DOC|OFFICIAL-CLIENT|3P-CLIENT)\b|^assumed\b`)
)

func TestGuideHasTheSourceOfEveryRoute(t *testing.T) {
	t.Parallel()
	var documented []string
	for _, row := range routeRow.FindAllStringSubmatch(sectionOf(t, "routes.md", "## Routes"), -1) {
		route := row[1] + "/api/v1" + row[2]
		assert.NotContains(t, documented, route, "it has two rows")
		documented = append(documented, route)
		assert.Regexp(t, sourceTag, row[3], route)
	}
	assert.ElementsMatch(t, newServer(t).Patterns(), documented)
}

func TestGuideHasTheMixOfTheChaos(t *testing.T) {
	t.Parallel()
	text := sectionOf(t, guidePath, "### Chaos")
	rows := regexp.MustCompile("`(\\w+)`\\s\\((\\d+)[,)]").FindAllStringSubmatch(text, -1)
	var got []string
	for _, row := range rows {
		got = append(got, row[1]+" "+row[2])
	}
	assert.Equal(t, agrentingtest.ChaosMix(), got)
}

func TestGuideHasTheFieldsOfEveryKind(t *testing.T) {
	t.Parallel()
	names := regexp.MustCompile("`(\\w+)`")
	fields := func(text string) (all []string) {
		for _, m := range names.FindAllStringSubmatch(text, -1) {
			all = append(all, m[1])
		}
		return all
	}
	_, text, found := strings.Cut(sectionOf(t, guidePath, "## Script faults"), "| kind | required | optional | in Go | what happens to the request |\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "\n\n")
	got := map[string][2][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|(.*?)\\|(.*?)\\|").FindAllStringSubmatch(text, -1) {
		for _, kind := range fields(row[1]) {
			got[kind] = [2][]string{fields(row[2]), fields(row[3])}
		}
	}
	assert.Equal(t, agrentingtest.KindFields(), got)
}

func TestFaultsOfTheGuideAreAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, agrentingtest.WithControl())
	b, err := os.ReadFile(guidePath)
	require.NoError(t, err)
	bodies := regexp.MustCompile(`(?s)_sandbox/faults" -d '(.*?)'`).FindAllStringSubmatch(string(b), -1)
	require.Len(t, bodies, 2)
	for _, body := range bodies {
		require.True(t, json.Valid([]byte(body[1])), body[1])
		assert.Equal(t, 201, w.post(faultsPath, body[1]).status, body[1])
	}
	assert.Len(t, w.Report().Faults, 5)
}
