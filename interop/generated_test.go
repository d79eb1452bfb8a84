package interop_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go/agrentingtest"
	"github.com/agrenting/agrenting-go/interop/internal/platformapi"
)

// generatedClient writes tasks and reads them again, at the platform itself.
func generatedClient(w *world) contact {
	api, err := platformapi.NewClientWithResponses(w.platform.URL, platformapi.WithHTTPClient(w.client().HTTPClient()))
	require.NoError(w.t, err)
	scout := w.platform.NewAgent(nil, agrentingtest.AgentConfig{Name: "Scout"}).ID
	return contact{exchange: func(ctx context.Context, n int) error {
		message := fmt.Sprint("message ", n)
		// The generated code has no key. A POST is repeated after a
		// refusal in any case, and with a key after other failures too.
		key := fmt.Sprint("exchange-", n)
		made, err := api.CreateTaskWithResponse(ctx, &platformapi.CreateTaskParams{XIdempotencyKey: &key},
			platformapi.CreateTaskJSONRequestBody{ProviderAgentId: &scout, Capability: new("search"), Input: message})
		if err != nil {
			return err
		}
		if made.JSON201 == nil {
			return fmt.Errorf("%w: %s: %s", errWrongEcho, made.Status(), made.Body)
		}
		read, err := api.GetTaskWithResponse(ctx, made.JSON201.Data.Id)
		if err != nil {
			return err
		}
		if read.JSON200 == nil {
			return fmt.Errorf("%w: %s: %s", errWrongEcho, read.Status(), read.Body)
		}
		return echoed(message, fmt.Sprint(read.JSON200.Data.Input))
	}}
}

// generated runs a program of this module in a folder and returns what it wrote
// to the file whose name takes the place of OUT.
func generated(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	var stderr bytes.Buffer
	args = slices.Clone(args)
	args[slices.Index(args, "OUT")] = out
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	cmd.Env = append(os.Environ(), "GOWORK=off")
	require.NoError(t, cmd.Run(), "%s", &stderr)
	b, err := os.ReadFile(out)
	require.NoError(t, err)
	return b
}

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	t.Parallel()
	checked := func(name string) string {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		return string(b)
	}
	same := func(have string, want []byte) { // a difference of thousands of lines is not useful
		t.Helper()
		if have != string(want) {
			t.Error("it is old: run go generate ./... in interop")
		}
	}
	json := generated(t, ".", "run", "./internal/render", "../api/openapi.yaml", "OUT")
	same(checked("../api/openapi.json"), json)

	client := generated(t, "internal/platformapi", "tool", "oapi-codegen", "-config", "config.yaml", "-o", "OUT", "../../../api/openapi.yaml")
	same(checked("internal/platformapi/platformapi.gen.go"), client)
}

func TestGeneratedClientReadsErrorsAndPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	api, err := platformapi.NewClientWithResponses(w.platform.URL, platformapi.WithHTTPClient(w.client().HTTPClient()))
	require.NoError(t, err)

	missing, err := api.GetTaskWithResponse(t.Context(), "none")
	require.NoError(t, err)
	require.NotNil(t, missing.JSONDefault)
	assert.Equal(t, http.StatusNotFound, missing.StatusCode())
	assert.Equal(t, agrentingtest.CodeNotFound, missing.JSONDefault.Errors[0].Code)

	w.platform.NewKey(w.agent.ID)
	one := 1
	page, err := api.ListCredentialsWithResponse(t.Context(), w.agent.ID, &platformapi.ListCredentialsParams{Limit: &one})
	require.NoError(t, err)
	require.NotNil(t, page.JSON200)
	assert.Len(t, page.JSON200.Data, 1)
	assert.True(t, *page.JSON200.Meta.Pagination.HasMore)
	rest, err := api.ListCredentialsWithResponse(t.Context(), w.agent.ID,
		&platformapi.ListCredentialsParams{Cursor: page.JSON200.Meta.Pagination.Cursor})
	require.NoError(t, err)
	assert.Len(t, rest.JSON200.Data, 1)
	assert.NotEqual(t, page.JSON200.Data[0].Id, rest.JSON200.Data[0].Id)
}
