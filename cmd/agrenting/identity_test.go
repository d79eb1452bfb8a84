package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/agrenting/agrenting-go"
)

// stored puts the world's key into a store.
func (w *world) stored(t *testing.T) (path string) {
	t.Helper()
	return w.save(t, agrenting.KeyRecord{Generation: 1, Current: agrenting.StoredKey{
		Credential: agrenting.APIKey(w.key.Secret), ID: w.key.ID, AgentID: w.agent.ID, Created: time.Now(),
	}})
}

func TestWhoamiShowsTheKeyThatWasAdopted(t *testing.T) {
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

func TestTheStoreKnowsWhoseKeyItHas(t *testing.T) {
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

func TestWhoseKeysIsAnsweredByWhoCan(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	assert.Equal(t, codeUsage, w.run(t, "keys", "list"))
	assert.Contains(t, w.err, "agrenting agents list shows")
	assert.NotContains(t, w.err, "agents mine")
	w.env[varAPIKey] = w.token
	assert.Equal(t, codeUsage, w.run(t, "keys", "list"))
	assert.Contains(t, w.err, "agrenting agents mine lists yours")
}

func TestAnExchangeThatTellsNoAgentSaysSo(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	assert.Equal(t, codeOK, w.run(t, "whoami", "--exchange"))
	assert.Contains(t, w.err, "did not tell which agent's key")
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

func TestARefusedCredentialIsMendedWhereItIs(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	path := w.stored(t)
	w.srv.RevokeKey(w.key.ID)
	for _, command := range []string{"whoami", "doctor"} {
		assert.Equal(t, codeRefused, w.run(t, command, "--store", path))
		assert.Contains(t, w.out+w.err, "set "+varAPIKey+" to a valid key, and it is adopted into --store "+path)
		assert.NotContains(t, w.out+w.err, "into --store "+path+" (keys come from https://agrenting.com/dashboard/api-keys); if")
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
	assert.Contains(t, w.err, varType+" says that it is of the type session")
	delete(w.env, varType)
	require.NoError(t, os.WriteFile(file, []byte(varAPIKey+"="+w.srv.NewKey(w.agent.ID).Secret), 0o600))
	for _, command := range []string{"whoami", "doctor"} {
		assert.Equal(t, codeRefused, w.run(t, command))
		assert.Contains(t, w.out+w.err, bareKey)
	}
}

func TestWhoamiIsOneBlock(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varAPIKey] = w.token
	assert.Equal(t, codeOK, w.run(t, "whoami"))
	column := strings.Index(w.out, w.srv.URL)
	lines := strings.Split(strings.TrimSpace(w.out), "\n")
	assert.Equal(t, column, strings.Index(lines[len(lines)-1], w.other.ID), w.out)
	assert.True(t, strings.HasPrefix(lines[len(lines)-1], "owns "))
}

func TestTLSToAPlainPortIsTroubleOfTheNetwork(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	w.env[varURL] = strings.Replace(w.srv.URL, "http:", "https:", 1)
	assert.Equal(t, codeNetwork, w.run(t, "whoami"), w.err)
	assert.Contains(t, w.err, "check the port of --url")
}
