package agrenting

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	modulePath = "github.com/agrenting/agrenting-go"
	// maxModules bounds what a program that imports this package links besides
	// the standard library.
	maxModules = 5
)

// goList lists the packages that the patterns need, tests left out, in a
// format.
func goList(t *testing.T, format string, patterns ...string) []string {
	t.Helper()
	args := append([]string{"list", "-deps", "-f", format}, patterns...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOPROXY=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", &stderr)
	return strings.Fields(string(out))
}

func TestAProgramLinksFewModules(t *testing.T) {
	t.Parallel()

	modules := goList(t, "{{with .Module}}{{.Path}}{{end}}", ".")
	slices.Sort(modules)
	modules = slices.DeleteFunc(slices.Compact(modules), func(m string) bool { return m == modulePath })
	assert.LessOrEqual(t, len(modules), maxModules, "%q", modules)
	assert.Contains(t, modules, "github.com/hashicorp/go-retryablehttp", "it was looked at")
}

func TestTheEmbeddedPlatformIsUsableOutsideOfTests(t *testing.T) {
	t.Parallel()

	const standard = "{{.ImportPath}}"
	kit := goList(t, standard, "./agrentingtest")
	assert.Contains(t, kit, modulePath+"/agrentingtest")
	for _, unwanted := range []string{"testing", "testing/synctest", "net/http/httptest", "github.com/stretchr/testify/assert"} {
		assert.NotContains(t, kit, unwanted)
	}
	sdk := goList(t, standard, ".")
	for _, unwanted := range []string{"testing", "net/http/httptest", modulePath + "/agrentingtest"} {
		assert.NotContains(t, sdk, unwanted)
	}
}
