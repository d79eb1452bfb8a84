package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
	"github.com/agrenting/agrenting-go/agrentingtest"
)

// stored puts the world's key into a store.
func (w *world) stored(t *testing.T) (folder string) {
	t.Helper()
	folder = w.path("keys")
	fill(t, folder, w.srv.URL, w.agent.ID, w.key)
	return folder
}

// fill puts a key into an empty store.
func fill(t *testing.T, folder, url, agentID string, key agrentingtest.Key) agrenting.Store {
	t.Helper()
	store, err := agrenting.FileStore(folder)
	require.NoError(t, err)
	client, err := agrenting.New(
		agrenting.WithoutEnvironment(), agrenting.WithBaseURL(url), agrenting.WithStore(store),
		agrenting.WithCredential(agrenting.APIKey(key.Secret)),
		agrenting.WithRotation(agrenting.RotationPolicy{Every: -1, AgentID: agentID, KeyID: key.ID}),
	)
	require.NoError(t, err)
	_, err = client.Credential(t.Context())
	require.NoError(t, err)
	require.NoError(t, client.Close())
	return store
}

// unfinish changes a key record so that a rotation by overlap is at a stage. holder has the
// lease. If holder is empty, the next attempt continues the rotation.
func unfinish(ctx context.Context, store agrenting.Store, stage agrenting.Stage, holder string, lease time.Duration) error {
	state, err := agrenting.LoadKeyState(ctx, store)
	if err != nil {
		return err
	}
	old, err := store.Load(ctx, "key")
	if err != nil {
		return err
	}
	var record map[string]any
	if err := json.Unmarshal(old.Data, &record); err != nil {
		return err
	}
	if body, ok := record["body"].(map[string]any); ok && body["intent"] == nil {
		body["intent"] = map[string]any{
			"key": "5b0e4f0e-58a1-4b39-8d0e-0a4a52f36c61", "strategy": agrenting.Overlap.String(), "stage": string(stage),
			"from": state.Credential.Fingerprint(), "generation": state.Generation + 1, "started": time.Now(),
		}
	}
	record["write"] = rand.Text()
	delete(record, "lease")
	if holder != "" {
		record["lease"] = map[string]any{"holder": holder, "duration": lease.String()}
	}
	data, err := json.Marshal(record)
	if err != nil {
		return err
	}
	_, err = store.Save(ctx, "key", data, old.Revision)
	return err
}

func TestWhoamiShowsAdoptedKey(t *testing.T) {
	t.Parallel()

	for _, command := range []string{"whoami", "doctor"} {
		w := newWorld(t)
		path := w.stored(t)
		w.srv.RevokeKey(w.key.ID)
		good := w.srv.NewKey(w.agent.ID).Secret
		w.env[varAPIKey] = good
		assert.Equal(t, codeOK, w.run(t, command, "--store", path), w.err)
		assert.Contains(t, w.out, agrenting.APIKey(good).Fingerprint(), command)
		if command == "whoami" {
			assert.NotContains(t, w.out, agrenting.APIKey(w.key.Secret).Fingerprint())
		}
	}
}

func TestStoreRecordNamesAgent(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	path := w.stored(t)
	assert.Equal(t, codeOK, w.run(t, "keys", "list", "--store", path), w.err)
	assert.Contains(t, w.out, w.key.ID)
	assert.Equal(t, codeOK, w.run(t, "whoami", "--store", path, "--json"), w.err)
	var who jsonWhoami
	require.NoError(t, json.Unmarshal([]byte(w.out), &who))
	assert.Equal(t, w.agent.ID, who.AgentID)
	assert.Equal(t, "Scribe", who.AgentName)
	assert.Equal(t, codeOK, w.run(t, "login", "--store", path, "--json"), w.err)
	var login jsonSession
	require.NoError(t, json.Unmarshal([]byte(w.out), &login))
	assert.Equal(t, w.agent.ID, login.AgentID)
	assert.Equal(t, "Scribe", login.AgentName)
}

func TestAgentIsTakenFromFirstSource(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	assert.Equal(t, codeUsage, w.run(t, "keys", "list"))
	assert.Contains(t, w.err, "agrenting agents list shows")
	assert.NotContains(t, w.err, "agents mine")
	w.env[varAPIKey] = w.token
	assert.Equal(t, codeUsage, w.run(t, "keys", "list"))
	assert.Contains(t, w.err, "agrenting agents mine lists yours")
}

func TestExchangeWithoutAgentIsReported(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	assert.Equal(t, codeOK, w.run(t, "whoami", "--exchange"))
	assert.Contains(t, w.err, "did not name the agent whose key")
	assert.Equal(t, codeOK, w.run(t, "whoami", "--exchange", "--agent", w.agent.ID))
	assert.Contains(t, w.out, "Scribe")
	assert.Empty(t, w.err)
	assert.Equal(t, codeOK, w.run(t, "login"))
	assert.NotContains(t, w.out, "agent")
	assert.Equal(t, codeOK, w.run(t, "login", "--agent", w.agent.ID))
	assert.Contains(t, w.out, "Scribe")
	if code := w.run(t, "login", "--agent", w.other.ID); code == codeOK {
		assert.NotContains(t, w.out, "Scout", "it is not that one's")
	}
}

func TestRefusedCredentialHintNamesItsSource(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	path := w.stored(t)
	w.srv.RevokeKey(w.key.ID)
	for _, command := range []string{"whoami", "doctor"} {
		assert.Equal(t, codeRefused, w.run(t, command, "--store", path))
		assert.Contains(t, w.out+w.err, "set "+varAPIKey+" to a valid key, and --store "+path+" adopts it")
		assert.NotContains(t, w.out+w.err, "--store "+path+" adopts it (keys come from https://agrenting.com/dashboard/api-keys); if")
	}
	file := w.path("key")
	require.NoError(t, os.WriteFile(file, []byte(w.key.Secret), 0o600))
	w.env[varKeyFile] = file
	for _, command := range []string{"whoami", "doctor"} {
		assert.Equal(t, codeRefused, w.run(t, command))
		assert.Contains(t, w.out+w.err, "put a valid one into the key file "+file+" ("+varKeyFile+")")
		assert.NotContains(t, w.out+w.err, bareKey)
	}
	assert.Equal(t, codeRefused, w.run(t, "whoami", "--store", path))
	assert.Contains(t, w.err, "put a valid key into the key file "+file)
	w.env[varType] = "session"
	assert.Equal(t, codeRefused, w.run(t, "whoami"))
	assert.Contains(t, w.err, varType+" sets its type to session")
	delete(w.env, varType)
	require.NoError(t, os.WriteFile(file, []byte(varAPIKey+"="+w.srv.NewKey(w.agent.ID).Secret), 0o600))
	assert.Equal(t, codeCredential, w.run(t, "whoami"))
	assert.Contains(t, w.err, `begins with a name and "="`)
	assert.Equal(t, codeCredential, w.run(t, "doctor"))
	assert.Contains(t, w.out+w.err, bareKey)
}

func TestWhoamiPrintsOneBlock(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varAPIKey] = w.token
	assert.Equal(t, codeOK, w.run(t, "whoami"))
	column := strings.Index(w.out, w.srv.URL)
	lines := strings.Split(strings.TrimSpace(w.out), "\n")
	assert.Equal(t, column, strings.Index(lines[len(lines)-1], w.other.ID), w.out)
	assert.True(t, strings.HasPrefix(lines[len(lines)-1], "owns "))
}

func TestTLSToPlainPortIsNetworkError(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varURL] = strings.Replace(w.srv.URL, "http:", "https:", 1)
	assert.Equal(t, codeNetwork, w.run(t, "whoami"), w.err)
	assert.Contains(t, w.err, "check the port of --url")
}
