//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

func TestPromptsNameKeyAndSource(t *testing.T) {
	t.Parallel()

	srv := agrentingtest.NewServer()
	t.Cleanup(srv.Close)
	user := srv.NewUser("Ada")
	agent := srv.NewAgent(user, agrentingtest.AgentConfig{Name: "Scribe"})
	first := srv.NewKey(agent.ID)
	token := srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "everything"})
	other := srv.NewToken(user.ID, agrentingtest.TokenConfig{Name: "reader"})
	home := folder(t)
	file, store := filepath.Join(home, "key"), filepath.Join(home, "store")
	env := []string{"AGRENTING_AGENT_ID=" + agent.ID, "NO_COLOR=1"}

	// A key with a name.
	out, code := terminal(t, srv, first.Secret, env, "", "", "keys", "create", "--name", "writer", "--out", file)
	assert.Equal(t, codeOK, code, out)
	keys := srv.LiveKeys(agent.ID)
	secret := readLine(t, file)
	key := agrenting.APIKey(secret)
	inFile := append([]string{"AGRENTING_KEY_FILE=" + file}, env...)

	for name, c := range map[string]struct {
		credential string
		env        []string
		args       []string
		want       string
	}{
		"revoke the key in use": {
			secret, env,
			[]string{"keys", "revoke", keys[1].ID},
			`This command itself uses the key "writer" (` + keys[1].ID + ", …" + secret[len(secret)-4:] + "), from AGRENTING_API_KEY. Revoke the key \"writer\"",
		},
		"revoke the key of the file": {
			first.Secret, inFile, []string{"keys", "revoke", keys[1].ID}, ", from the key file " + file + " (AGRENTING_KEY_FILE). Revoke",
		},
		"revoke another key": {secret, env, []string{"keys", "revoke", first.ID}, "\x00Revoke the key (" + first.ID + ", …"},
		"revoke an unknown key": {
			secret, env, []string{"keys", "revoke", "none"}, "\x00Revoke the key none of the agent " + agent.ID + " at once?",
		},
		"revoke the token in use": {
			token.Secret, nil, []string{"tokens", "revoke", token.ID}, `This command itself uses the token "everything" (` + token.ID,
		},
		"revoke another token": {token.Secret, nil, []string{"tokens", "revoke", other.ID}, "\x00Revoke the token \"reader\" (" + other.ID},
		"rotate": {
			secret, env,
			[]string{"keys", "rotate", "--out", filepath.Join(home, "new")},
			`Rotate the key "writer" from AGRENTING_API_KEY (` + key.Fingerprint() + ")? The new key goes to " + filepath.Join(home, "new") + "; the old one stops",
		},
		"rotate and show": {first.Secret, nil, []string{"keys", "rotate", "--show"}, ")? The new key is printed; the old one stops"},
		"fill a store": {
			secret, env,
			[]string{"keys", "rotate", "--store", store},
			`Store the key "writer" from AGRENTING_API_KEY (` + key.Fingerprint() + ") in " + store + " and rotate it? The old key is revoked; only programs that use the store",
		},
		"fill a store from a file": {
			first.Secret, inFile,
			[]string{"keys", "rotate", "--store", store},
			`Store the key "writer" from the key file ` + file + " (AGRENTING_KEY_FILE) (" + key.Fingerprint() + ") in " + store,
		},
		"end all sessions": {
			secret, env, []string{"logout"}, "End the sessions of the key " + key.Fingerprint() + " from AGRENTING_API_KEY? The platform does not say how many it ends",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, code := terminal(t, srv, c.credential, append([]string{"NO_COLOR=1", "COLUMNS=200"}, c.env...), "[y/N]", "n\n", c.args...)
			assert.Equal(t, codeFailure, code, out)
			assert.Contains(t, "\x00"+out, c.want)
		})
	}
	t.Cleanup(func() {
		assert.Len(t, srv.LiveKeys(agent.ID), 2, "canceled; nothing was changed")
		assert.Zero(t, srv.Count("DELETE *"))
		assert.NoDirExists(t, store)
	})
}

func TestQuestionNamesTheKeyInTheStore(t *testing.T) {
	t.Parallel()

	r := newRotating(t)
	out, code := r.interruptedAt("never")
	assert.Equal(t, codeOK, code, out)
	key := r.state().Credential.Fingerprint()
	env := []string{"AGRENTING_AGENT_ID=" + r.agent.ID, "NO_COLOR=1"}
	out, code = terminal(t, r.srv, r.key.Secret, env, "[y/N]", "n\n", "keys", "rotate", "--store", r.path)
	assert.Equal(t, codeFailure, code, out)
	assert.Regexp(t, `^Rotate the key "agrenting-go/\S+" in `+r.path+` \(`+key+`\)\? The old key is revoked; programs that use the store get the new one. \[y/N\]`, withoutProgress(out))
}

// The folder of the file is gone, and there is no folder for temporary files.
func TestUnwritableSecretIsPrintedToTerminal(t *testing.T) {
	t.Parallel()

	for name, show := range map[string]bool{"terminal": true, "pipe": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, target := newRotating(t), folder(t)
			reached, release := hold(t, r.srv, "")
			removed := make(chan error, 1)
			go func() {
				<-reached
				removed <- os.RemoveAll(target)
				release()
			}()
			args := []string{"agrenting", "keys", "create", "--out", filepath.Join(target, "secret")}
			env := append(r.environment(), "TMPDIR="+filepath.Join(target, "none"))
			var out string
			if show {
				out, _ = terminal(t, r.srv, r.key.Secret, env, "", "", args[1:]...)
			} else {
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				cmd.Env = env
				text, err := cmd.CombinedOutput()
				require.Error(t, err)
				out = string(text)
			}
			require.NoError(t, <-removed)
			assert.Contains(t, out, " was created, but ")
			assert.Regexp(t, `revoke it with agrenting keys revoke [0-9a-f-]{36} --of `+r.agent.ID, out)
			assert.NotContains(t, out, "repeat the same command")
			secret := regexp.MustCompile(`[0-9a-f]{40}`).FindString(out)
			if show {
				assert.Contains(t, out, "its secret was printed to this terminal, once")
				assert.True(t, r.srv.KeyAlive(secret))
			} else {
				assert.Contains(t, out, "its secret could not be kept elsewhere")
				assert.Empty(t, secret, "it may be a log")
			}
		})
	}
}

func readLine(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.TrimSpace(string(text))
}
