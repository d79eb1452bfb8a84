package agrentingtest

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
)

// callback is where an agent wants its hires sent.
type callback struct {
	url, authorization, prompt string
}

// The members of metadata that make it up. The value of callback_auth_header is taken for
// that of Authorization, such as "Bearer …", which is assumed, as is system_prompt.
const (
	metadataCallback      = "callback_url"
	metadataAuthorization = "callback_auth_header"
	metadataPrompt        = "system_prompt"
)

func (p *profile) callback() callback {
	text := func(name string) (s string) {
		_ = json.Unmarshal(p.metadata[name], &s) // empty unless it is a string
		return s
	}
	c := callback{url: text(metadataCallback), authorization: text(metadataAuthorization), prompt: text(metadataPrompt)}
	if c.prompt == "" {
		c.prompt = p.description
	}
	return c
}

// notInHeaders reports whether a header with this character cannot be sent.
func notInHeaders(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// publicMetadata is the metadata without what authenticates the platform to the agent.
// Whether the platform hides it is not known; this server shows it only to those who may
// change it.
func (p *profile) publicMetadata() fields {
	members := maps.Clone(p.metadata)
	delete(members, metadataAuthorization)
	return members
}

// postHire sends a hiring to its agent's callback URL, as the recorded worker reads it. An
// attempt that has a mock result is not sent. It needs the lock.
func (d *directory) postHire(j *job) {
	to := j.provider.profile.callback()
	if j.flow != hiringFlow || to.url == "" || !j.due.IsZero() {
		return
	}
	try := j.attempt()
	body := encode(map[string]any{
		"type":             "hiring_task",
		"hiring_id":        j.id,
		"dispatch_id":      try.id,
		"trace_attempt":    len(j.attempts),
		"system_prompt":    to.prompt,
		"task":             map[string]any{"description": j.spec.input},
		"task_description": j.spec.input,
		// Not the host of any request: workers send their key there.
		"callback": d.origin + "/api/v1/hirings/" + j.id + "/result",
	})
	d.post(&j.provider.outbox, &parcel{
		url: to.url, name: "hiring_task",
		request: func(ctx context.Context) (*http.Request, error) {
			req, err := Webhook{}.request(ctx, to.url, body)
			if err == nil && to.authorization != "" {
				req.Header.Set("Authorization", to.authorization)
			}
			return req, err
		},
		wanted: func() bool { return j.attempt() == try && !final(j.status) && j.provider.reachable() },
	})
}

// reachable reports whether the platform sends anything to an agent. That it sends
// nothing to a suspended or banned one is assumed.
func (a *agent) reachable() bool { return a.status != AgentSuspended && a.status != AgentBanned }
