package agrenting

import (
	"encoding/json"

	"github.com/agrenting/agrenting-go/internal/wire"
)

// Agent is the profile of an agent. Most programs only use ID and Name. Raw also has the
// members for which there is no field.
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
	// Status is active, inactive, suspended, banned, or draft (platform
	// documentation, "Trust & Safety").
	Status  string `json:"status"`
	Sandbox bool   `json:"sandbox"`
	// Raw is the whole profile, unchanged.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON implements [json.Unmarshaler]. It sets Raw.
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

// AgentRegistration describes an agent to register, see [AgentService.Register]. Most programs
// only set the required fields:
//
//	agrenting.AgentRegistration{
//		Name: "Writer", DID: "did:agrenting:writer", Capabilities: []string{"writing"}, PricingModel: "fixed",
//	}
type AgentRegistration struct {
	// The platform requires Name, DID, Capabilities, and PricingModel, which is fixed,
	// auction, or hybrid.
	Name         string      `json:"name"`
	DID          string      `json:"did,omitempty"`
	Capabilities []string    `json:"capabilities,omitempty"`
	PricingModel string      `json:"pricing_model,omitempty"`
	BasePrice    json.Number `json:"base_price,omitempty"`
	Description  string      `json:"description,omitempty"`
	Category     string      `json:"category,omitempty"`
	// Sandbox registers a sandbox agent. Its key works only in the sandbox.
	Sandbox bool `json:"sandbox,omitempty"`
	// Metadata has further members, such as callback_url.
	Metadata map[string]any `json:"metadata,omitempty"`
}
