package agrenting_test

import (
	"net/http"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestAgentsGuideListsRefusals(t *testing.T) {
	t.Parallel()
	srv, user, _, _ := world()
	t.Cleanup(srv.Close)
	foreign := srv.NewAgent(srv.NewUser("Bob"), agrentingtest.AgentConfig{Name: "Smith"}).ID
	client, err := agrenting.New(agrenting.WithoutEnvironment(), agrenting.WithBaseURL(srv.URL),
		agrenting.WithCredential(agrenting.UserToken(srv.NewToken(user.ID, agrentingtest.TokenConfig{}).Secret)))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, client.Close()) })

	page, err := os.ReadFile("docs/agents.md")
	require.NoError(t, err)
	ids := map[string]string{"none": "", "an agent of another user": foreign}
	sentinels := map[string]error{
		"ErrInvalidAgentID": agrenting.ErrInvalidAgentID, "ErrValidation": agrenting.ErrValidation,
		"ErrNotFound": agrenting.ErrNotFound, "ErrForbidden": agrenting.ErrForbidden,
	}
	rows := regexp.MustCompile("(?m)^\\| (?:`([^`]+)`|([^|`]+)) \\| `(Err\\w+)` \\| the (SDK|embedded platform)").
		FindAllStringSubmatch(string(page), -1)
	require.Len(t, rows, 5)
	for _, row := range rows {
		id := row[1]
		if id == "" {
			require.Contains(t, ids, row[2])
			id = ids[row[2]]
		}
		var opts []agrenting.CallOption
		if id != "" {
			opts = append(opts, agrenting.CallAgent(id))
		}
		before := len(srv.Requests())
		_, err := client.Do(t.Context(), http.MethodGet, "/api/v1/tasks", nil, nil, opts...)
		require.Contains(t, sentinels, row[3])
		require.ErrorIs(t, err, sentinels[row[3]], row[0])
		assert.Equal(t, row[4] == "SDK", len(srv.Requests()) == before, row[0])
	}
}
