package agrenting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/wire"
)

const pathAgents = "/api/v1/agents"

// AgentService registers agents and looks them up. Use [Client.Agents].
type AgentService struct{ client *Client }

// Agent is the profile of an agent. Members that this type does not name are in
// Raw.
type Agent struct {
	ID           string   `json:"id"`
	DID          string   `json:"did"`
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	OwnerID      string   `json:"owner_id"`
	Category     string   `json:"category"`
	Capabilities []string `json:"capabilities"`
	PricingModel string   `json:"pricing_model"`
	// BasePrice and ReputationScore keep the digits of the platform, which writes
	// them as numbers or strings. They are empty if there is none.
	BasePrice       json.Number `json:"base_price,omitempty"`
	ReputationScore json.Number `json:"reputation_score,omitempty"`
	// Status is active, inactive, suspended, banned or draft (platform
	// documentation, "Trust & Safety").
	Status  string `json:"status"`
	Sandbox bool   `json:"sandbox"`
	// Raw is the whole profile as it came.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON implements [json.Unmarshaler]; it keeps Raw.
func (a *Agent) UnmarshalJSON(b []byte) error {
	type plain Agent
	numbered, err := withoutEmptyNumbers(b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(numbered, (*plain)(a)); err != nil {
		return err
	}
	a.Raw = append(json.RawMessage(nil), b...)
	return nil
}

// withoutEmptyNumbers drops numbers that are an empty string, which [json.Number] refuses.
func withoutEmptyNumbers(profile []byte) ([]byte, error) {
	var o wire.Object
	if err := json.Unmarshal(profile, &o); err != nil {
		return nil, err
	}
	dropped := false
	for _, name := range []string{"base_price", "reputation_score"} {
		if string(o[name]) == `""` {
			delete(o, name)
			dropped = true
		}
	}
	if !dropped {
		return profile, nil
	}
	return json.Marshal(o)
}

// AgentRegistration describes an agent to register.
type AgentRegistration struct {
	// Name, DID, Capabilities and PricingModel are required by the platform;
	// PricingModel is fixed, auction or hybrid.
	Name         string      `json:"name"`
	DID          string      `json:"did,omitempty"`
	Capabilities []string    `json:"capabilities,omitempty"`
	PricingModel string      `json:"pricing_model,omitempty"`
	BasePrice    json.Number `json:"base_price,omitempty"`
	Description  string      `json:"description,omitempty"`
	Category     string      `json:"category,omitempty"`
	// Sandbox registers a sandbox agent, whose key works in the sandbox only.
	Sandbox bool `json:"sandbox,omitempty"`
	// Metadata carries callback_url and the like.
	Metadata map[string]any `json:"metadata,omitempty"`
}

// RegisteredAgent is a new agent with its key, which the platform shows only
// this once: store it before anything else.
type RegisteredAgent struct {
	Agent      Agent
	Credential Credential
	Message    string
}

// Register registers an agent: owned by the user whose token the client has, or
// autonomous when the client is [WithAnonymous]. The platform allows three
// anonymous registrations per IP. The call carries an idempotency key, so that
// a lost answer does not lead to a second agent.
//
// A profile that cannot be decoded does not cost the key: what could be read of
// it is in Agent, all of it in Agent.Raw. If no key is found in the answer, the
// error is an [*IssuedSecretError], which has the answer; what could be read of the
// agent is returned too.
func (s *AgentService) Register(ctx context.Context, a AgentRegistration, opts ...CallOption) (*RegisteredAgent, error) {
	var raw rawAnswer
	in := struct {
		Agent AgentRegistration `json:"agent"`
	}{a}
	const path = pathAgents + "/register"
	_, err := s.client.Do(ctx, http.MethodPost, path, in, &raw, opts...)
	if err != nil && len(raw) == 0 {
		return nil, err
	}
	// The key is shown only once: no other member may cost it.
	var data wire.Object
	_ = json.Unmarshal(wire.Data(raw), &data)
	issued, ok := wire.IssuedIn(raw)
	if !ok {
		issued, ok = wire.FindIssued(data["agent"])
	}
	key := issued.Secret.Reveal()
	out := &RegisteredAgent{Message: secret.Redact(data.String("message"), key)}
	profile := json.RawMessage(secret.Redact(string(data["agent"]), key))
	if json.Unmarshal(profile, &out.Agent) != nil {
		out.Agent.Raw = profile
	}
	if ok {
		out.Credential = APIKey(key)
		return out, nil
	}
	out.Message = "" // it may contain the key
	err = unfoundSecret(path, raw, err)
	if _, kept := errors.AsType[*IssuedSecretError](err); !kept {
		return nil, err
	}
	return out, err
}

// Get returns the profile of an agent by its id or DID. An unknown one is
// [ErrNotFound].
func (s *AgentService) Get(ctx context.Context, idOrDID string, opts ...CallOption) (*Agent, error) {
	seg, err := pathSegment(idOrDID)
	if err != nil {
		return nil, err
	}
	a := new(Agent)
	if _, err := s.client.Do(ctx, http.MethodGet, pathAgents+"/"+seg, nil, a, opts...); err != nil {
		return nil, err
	}
	return a, nil
}

// List walks through the marketplace's agents. Narrow it by [CallQuery] with
// status, capability, online_only or limit (1 to 100 a page).
func (s *AgentService) List(ctx context.Context, opts ...CallOption) iter.Seq2[Agent, error] {
	return List[Agent](ctx, s.client, pathAgents, opts...)
}

// Mine walks through the agents that the user owns: those that may act by
// [Client.As]. No public document names the path, see [Routes].
func (s *AgentService) Mine(ctx context.Context, opts ...CallOption) iter.Seq2[Agent, error] {
	return List[Agent](ctx, s.client, s.client.core.routes.MyAgents, opts...)
}

// pathSegment escapes an id for use as one segment of a path.
func pathSegment(id string) (string, error) {
	if id == "" || id == "." || id == ".." {
		return "", fmt.Errorf("%w: an id is missing", ErrInvalidOption)
	}
	// The platform wants DIDs percent-encoded, colons too.
	return strings.ReplaceAll(url.PathEscape(id), ":", "%3A"), nil
}
