package agrentingtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// User is a person or organization that may own agents and have user tokens.
type User struct {
	ID   string
	Name string
}

// Agent is an agent that is registered on the platform, such as the agent "Scribe" with
// the DID "did:agrenting:scribe". Most programs only read ID.
type Agent struct {
	ID      string
	DID     string
	Name    string
	Sandbox bool
	OwnerID string // empty for an autonomous agent
}

// AgentConfig configures a new agent, such as AgentConfig{Name: "Scribe", Sandbox: true}.
// The zero value is valid. Most programs only set Name.
type AgentConfig struct {
	ID           string // a UUID; random if empty
	Name         string
	DID          string // made from Name if empty
	Sandbox      bool
	Capabilities []string
	Reputation   float64 // from 0 to 5, 0 if there is none yet; from 4.5 on the rate limits double, below 3.0 they halve
	PricingModel string  // "fixed" if empty
	BasePrice    string  // in USD, such as "2.50"; no price if empty

	// Metadata is the metadata of the profile. Hires are sent to its callback_url, such as
	// "http://127.0.0.1:8765/hire", with callback_auth_header, such as "Bearer x", as
	// Authorization, and with system_prompt. callback_auth_header is visible only to callers
	// that may change the agent.
	Metadata map[string]any

	// MockAfter is the time after which the agent's tasks and hirings are completed with a
	// mock result, such as 1 s. Zero means that production agents wait for their program.
	// Sandbox agents complete their work at once, unless MockAfter delays it.
	MockAfter time.Duration
}

// directory has all users, agents, and other data of the platform. One lock protects all
// of it, so that no reader sees a rotation or revocation half done.
type directory struct {
	mu         sync.RWMutex
	origin     string // the server's URL
	changes    announcer
	post       func(*outbox, *parcel)
	seq        uint64
	users      map[string]*user
	agents     map[string]*agent
	agentByDID map[string]*agent
	agentList  []*agent
	keys       map[string]*key
	keyBySum   map[digest]*key
	tokens     map[string]*userToken
	tokenBySum map[digest]*userToken
	sessions   map[digest]*session
	sweepAt    int
	jobs       collection[*job]
	mocks      []*job // jobs without their mock result
	documents  collection[*document]
	webhooks   collection[*registration]
	ends       map[string]chan struct{} // by credential ID; see Revoked
}

type user struct {
	id, name string
	agents   []*agent
	tokens   []*userToken
	account  account
	hires    map[string]hire // by client_idempotency_key
}

// agent has immutable identity fields, which may be read without the lock. The profile
// may be read only with the lock.
type agent struct {
	id, did    string
	owner      *user
	sandbox    bool
	reputation float64
	mockAfter  time.Duration
	created    time.Time
	seq        uint64

	keys    []*key
	profile profile
	status  string
	outbox  outbox  // for hires
	account account // used for an agent without an owner
}

type profile struct {
	name         string
	description  string
	category     string
	capabilities []string
	pricingModel string
	basePrice    string // a decimal number, or empty
	metadata     fields // decoded, so that the hidden members are also the used ones; nil if there is none
}

// The statuses of an agent.
const (
	AgentActive    = "active"
	AgentInactive  = "inactive"
	AgentSuspended = "suspended"
	AgentBanned    = "banned"
	AgentDraft     = "draft"
)

// SetAgentStatus changes the status of an agent, for example to [AgentSuspended]. New
// agents are active. Only active agents can be discovered, hired, and given tasks. The
// others continue the work that they have, and their keys still authenticate. Suspended
// and banned agents also get no webhooks and hires. The platform documents that suspended
// and banned agents lose discovery and tasks. The rest is an assumption.
//
// It panics if there is no such agent, or if status is not one of the constants.
func (s *Server) SetAgentStatus(agentID, status string) {
	if !slices.Contains([]string{AgentActive, AgentInactive, AgentSuspended, AgentBanned, AgentDraft}, status) {
		panic(fmt.Sprintf("agrentingtest: SetAgentStatus: %q is not a status of agents", status))
	}
	s.dir.mu.Lock()
	defer s.unlock()
	a := s.dir.find(agentID)
	if a == nil {
		panic(fmt.Sprintf("agrentingtest: SetAgentStatus: no agent %q on this server", agentID))
	}
	if a.status == status {
		return
	}
	a.status = status
	s.dir.announce(Change{
		Event: "agent.status_changed", UserID: a.ownerID(), AgentID: a.id, OwnerID: a.ownerID(), Status: status, At: s.now(),
	}, a.render)
}

func newDirectory() *directory {
	return &directory{
		users:      make(map[string]*user),
		agents:     make(map[string]*agent),
		agentByDID: make(map[string]*agent),
		keys:       make(map[string]*key),
		keyBySum:   make(map[digest]*key),
		tokens:     make(map[string]*userToken),
		tokenBySum: make(map[digest]*userToken),
		sessions:   make(map[digest]*session),
		sweepAt:    1024,
	}
}

func (d *directory) next() uint64 {
	d.seq++
	return d.seq
}

// NewUser creates a user.
func (s *Server) NewUser(name string) *User {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	u := &user{id: newUUID(), name: name, account: account{available: s.cfg.balance}}
	d.users[u.id] = u
	return &User{ID: u.id, Name: name}
}

// NewAgent creates an agent of owner, or an autonomous agent if owner is nil. It panics
// if owner is not a user of this server, if the ID or the base price is malformed, if the
// metadata cannot be encoded, or if the ID or DID is taken.
func (s *Server) NewAgent(owner *User, cfg AgentConfig) *Agent {
	d := s.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	var u *user
	if owner != nil {
		if u = d.users[owner.ID]; u == nil {
			panic(fmt.Sprintf("agrentingtest: NewAgent: no user %q on this server", owner.ID))
		}
	}
	if cfg.ID == "" {
		cfg.ID = newUUID()
	}
	if !isUUID(cfg.ID) {
		panic(fmt.Sprintf("agrentingtest: NewAgent: %q is not a UUID", cfg.ID))
	}
	if cfg.PricingModel == "" {
		cfg.PricingModel = "fixed"
	}
	if _, ok := parseMoney(cfg.BasePrice); cfg.BasePrice != "" && !ok {
		panic(fmt.Sprintf("agrentingtest: NewAgent: the base price %q is not a decimal number", cfg.BasePrice))
	}
	a, ok := d.addAgent(u, cfg, s.now())
	if !ok {
		panic(fmt.Sprintf("agrentingtest: NewAgent: the ID %q or the DID %q is taken", cfg.ID, cfg.DID))
	}
	return a.export()
}

// addAgent reports false if the ID or DID is taken. It needs the lock.
func (d *directory) addAgent(owner *user, cfg AgentConfig, now time.Time) (*agent, bool) {
	id := strings.ToLower(cfg.ID)
	if cfg.DID == "" {
		cfg.DID = "did:agrenting:" + slug(cfg.Name) + id[:8]
	}
	if d.agents[id] != nil || d.agentByDID[cfg.DID] != nil {
		return nil, false
	}
	a := &agent{
		id:         id,
		did:        cfg.DID,
		owner:      owner,
		sandbox:    cfg.Sandbox,
		reputation: cfg.Reputation,
		mockAfter:  cfg.MockAfter,
		created:    now,
		seq:        d.next(),
		status:     AgentActive,
		profile: profile{
			name:         cfg.Name,
			capabilities: append([]string{}, cfg.Capabilities...),
			pricingModel: cfg.PricingModel,
			basePrice:    cfg.BasePrice,
		},
	}
	if cfg.Metadata != nil {
		_ = json.Unmarshal(encode(cfg.Metadata), &a.profile.metadata) // a map is encoded as an object
	}
	d.agents[a.id] = a
	d.agentByDID[a.did] = a
	d.agentList = append(d.agentList, a)
	if owner != nil {
		owner.agents = append(owner.agents, a)
	}
	return a, true
}

// find returns an agent by its UUID or DID. It needs the lock.
func (d *directory) find(idOrDID string) *agent {
	if a := d.agents[strings.ToLower(idOrDID)]; a != nil {
		return a
	}
	return d.agentByDID[idOrDID]
}

func (a *agent) export() *Agent {
	return &Agent{ID: a.id, DID: a.did, Name: a.profile.name, Sandbox: a.sandbox, OwnerID: a.ownerID()}
}

func (a *agent) ownerID() string {
	if a.owner == nil {
		return ""
	}
	return a.owner.id
}

func (a *agent) environment() string { return environment(a.sandbox) }

func environment(sandbox bool) string {
	if sandbox {
		return "sandbox"
	}
	return "production"
}

// slug returns the readable part of a DID.
func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			_, _ = b.WriteRune(r) // never fails
		case r == ' ', r == '-', r == '_':
			_ = b.WriteByte('-') // never fails
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return b.String() + "-"
}
