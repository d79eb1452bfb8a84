package agrenting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agrenting/agrenting-go/internal/environ"
	"github.com/agrenting/agrenting-go/internal/evidence"
	"github.com/agrenting/agrenting-go/internal/gate"
	"github.com/agrenting/agrenting-go/internal/hint"
	"github.com/agrenting/agrenting-go/internal/origin"
	"github.com/agrenting/agrenting-go/internal/queue"
	"github.com/agrenting/agrenting-go/internal/record"
	"github.com/agrenting/agrenting-go/internal/renew"
	"github.com/agrenting/agrenting-go/internal/retry"
	"github.com/agrenting/agrenting-go/internal/secret"
	"github.com/agrenting/agrenting-go/internal/session"
	"github.com/agrenting/agrenting-go/internal/wire"
)

// core is the state that a client shares with the clients made by [Client.As].
type core struct {
	cfg       *config
	base      *url.URL
	env       Environment
	routes    *Routes
	transport *Transport
	creds     *credentialCache
	endpoint  *session.Endpoint
	sessions  *session.Source // nil without WithSession
	stored    *storedKey      // nil without a store for the key
	agent     agentHeader     // the default one
	origins   origin.Set
	evidence  *evidence.Book
	events    *queue.Queue
	monitor   *monitor // nil if nothing observes the requests
	stop      func()   // ends the instrumentations; may be nil
	gates     gate.Set
	ownBase   bool

	rate atomic.Pointer[Rate]
	told struct{ routes, hosts hint.Once } // what was logged once

	closeOnce sync.Once
	closeErr  error
}

// newCore applies options and environment. It makes no request and reads no
// file.
func newCore(opts []Option) (*core, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if cfg.logger == nil {
		cfg.logger = environ.New(cfg.lookup).Logger(os.Stderr)
	}
	cfg.nameStore()
	explicit := cfg.explicit()
	env, err := readEnvironment(cfg.lookup, cfg.env, !explicit)
	if err != nil {
		return nil, err
	}
	c := &core{cfg: cfg, env: env.environment, routes: cfg.routes}
	c.evidence = evidence.NewBook(platformCalls{c})
	c.endpoint = session.NewEndpoint(c.routes.Authenticate, platformCalls{c})
	agent, err := c.agentFrom(env.agentID)
	if err != nil {
		return nil, err
	}
	origins, err := c.originsFrom(env.baseURL)
	if err != nil {
		return nil, err
	}
	c.events = queue.New()
	panicked := logPanics(c)
	c.monitor = newMonitor(cfg, panicked)
	c.agent, c.origins = agent, origins
	if c.creds, err = c.newCache(&env); err != nil {
		return nil, err
	}
	if err := c.checkAgent(agent); err != nil {
		return nil, err
	}
	base := cfg.base
	if base == nil {
		base, c.ownBase = wire.DefaultBase(origin.IsLocal)
	}
	c.transport = &Transport{
		base: base, creds: c.creds, origins: origins, agent: agent,
		insecure: cfg.insecure, override: cfg.override,
		retry: retry.New(cfg.retry.retries(), cfg.logger), core: c,
	}
	if len(cfg.instruments) > 0 {
		c.stop = start(cfg.instruments, newClient(c, c.transport).Status, panicked)
	}
	return c, nil
}

func (c *core) agentFrom(variable string) (agentHeader, error) {
	id := c.cfg.agentID
	if id == "" {
		id = variable
	}
	if id == "" {
		return agentHeader{}, nil
	}
	h := newAgentHeader(id)
	if h.err != nil {
		return h, fmt.Errorf("%s: %w", environ.AgentID, h.err)
	}
	return h, nil
}

// checkAgent refuses a key in place of the agent's ID: IDs are
// printed.
func (c *core) checkAgent(agent agentHeader) error {
	if cred := c.creds.latest(); agent.id() != "" && !cred.IsZero() && cred.Reveal() == agent.id() {
		return fmt.Errorf("%s: %w: it is the same as the credential; set it to the ID of the agent", environ.AgentID, ErrInvalidAgentID)
	}
	return nil
}

func (c *core) originsFrom(variable string) (origin.Set, error) {
	raw, name := c.cfg.baseURL, "WithBaseURL"
	switch {
	case raw != "":
	case variable != "":
		raw, name = variable, environ.URL
	default:
		raw = DefaultBaseURL
	}
	base, err := origin.ParseBase(raw, c.cfg.insecure)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.base = base
	origins, err := origin.NewSet(base, c.cfg.allowed, c.cfg.insecure)
	if err != nil {
		return nil, fmt.Errorf("WithAllowedOrigins: %w", err)
	}
	return origins, nil
}

// newCache finds the credential: an explicit one, or the environment's.
func (c *core) newCache(env *envConfig) (*credentialCache, error) {
	src, name := c.cfg.source, "WithCredentialSource"
	switch {
	case c.cfg.anonymous:
		return newFixedCache("WithAnonymous", &preparedCredential{}, c), nil
	case !c.cfg.credential.IsZero():
		src, name = Static(c.cfg.credential), "WithCredential"
	case src == nil:
		if src, name = env.source, env.sourceName; src == nil && c.cfg.keyStore() == nil {
			return nil, env.noCredential()
		}
	}
	if c.cfg.keyStore() != nil {
		var notFound error
		if src == nil {
			notFound = env.noCredential()
		}
		return c.storedKeyCache(src, name, notFound)
	}
	if c.cfg.rotation != nil {
		return nil, optionError("WithRotation", "it needs WithStore, since the platform shows a new key only once")
	}
	if c.cfg.session != nil {
		if err := c.checkFixedKey(name, src); err != nil {
			return nil, err
		}
		return c.sessionCache(name, descriptionOf(src), src), nil
	}
	if f, ok := src.(fixedSource); ok {
		cred, _ := f.fixed() // prepare says what is wrong with it
		s, err := c.prepare(cred, evidence.Fixed)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return newFixedCache(name, s, c), nil
	}
	cheap := isCheap(src) // a file, which is checked only when there is traffic
	return c.newRenewingCache(name, descriptionOf(src), !cheap, renew.Config[*preparedCredential]{
		Fetch: fetchFrom(src, func(cred Credential) (*preparedCredential, error) {
			return c.prepare(cred, evidence.Given)
		}),
		Proactive: !cheap,
	}), nil
}

// checkFixedKey checks a key that is known already. name is the option that has it.
func (c *core) checkFixedKey(name string, src CredentialSource) error {
	f, ok := src.(fixedSource)
	if !ok {
		return nil
	}
	key, _ := f.fixed() // checkKey says what is wrong with it
	if err := c.checkKey(key); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// admit checks a credential before it is sent for the first time,
// regardless of its source.
func (c *core) admit(cred Credential) error {
	if cred.IsZero() {
		return fmt.Errorf("%w: the source returned an empty credential and no error", ErrNoCredential)
	}
	if err := cred.validate(); err != nil {
		return err
	}
	if err := checkEnvironment(c.env, cred, c.cfg.unmarkedSandbox); err != nil {
		return err
	}
	if c.cfg.goos == "js" && !c.cfg.clientSideKeys && cred.Kind() != KindSession {
		return fmt.Errorf("%w: the %s must not be used in a browser (GOOS=js), where anyone can read it. "+
			"Use a session token, or set WithClientSideKeys", ErrInvalidCredential, cred.Kind())
	}
	return nil
}

// prepare makes an admitted credential ready for use.
func (c *core) prepare(cred Credential, from evidence.Provenance) (*preparedCredential, error) {
	if err := c.admit(cred); err != nil {
		return nil, err
	}
	name, _ := cred.header(c.cfg.keyHeader)
	s := &preparedCredential{
		cred: cred, name: name, history: c.evidence.Of(cred.c, from),
	}
	if c.cfg.keyStore() != nil {
		s.gate = c.gates.New()
	}
	return s, nil
}

// storedKeyCache is the cache of a key in a store. initial may be nil; notFound then
// says where it was looked for. from names the initial source.
func (c *core) storedKeyCache(initial CredentialSource, from string, notFound error) (*credentialCache, error) {
	name := "WithStore"
	if p := c.cfg.rotation; p != nil && p.Store != nil {
		name = "RotationPolicy.Store"
	}
	if err := c.checkFixedKey(name, initial); err != nil {
		return nil, err
	}
	if p := c.cfg.rotation; p != nil {
		if owner, ok := p.Owner.(fixedSource); ok {
			if err := c.checkOwner(owner.fixed()); err != nil {
				return nil, err
			}
		}
	}
	store := c.cfg.keyStore()
	c.stored = newStoredKey(c, store, initial, notFound)
	var k *credentialCache
	if c.cfg.session != nil {
		k = c.sessionCache(name, store, c.stored)
	} else {
		k = c.newRenewingCache(name, store, false, renew.Config[*preparedCredential]{Fetch: c.stored.fetch, RetryAt: retryAt})
	}
	if k.initial = (hint.Source{Name: from, Place: hint.Place(descriptionOf(initial))}); initial == nil {
		k.initial.Name = environ.APIKey
	}
	return k, nil
}

//nolint:contextcheck,nolintlint // Close has no context; its callers would all be told to pass one
func (c *core) close() error {
	c.closeOnce.Do(func() {
		if c.stored != nil {
			c.closeErr = c.stored.close()
		}
		c.closeErr = errors.Join(c.closeErr, c.creds.close())
		c.logout() // from here on, no session can be obtained
		if c.ownBase {
			c.transport.CloseIdleConnections()
		}
		if c.stop != nil {
			c.stop()
		}
		c.events.Close()
	})
	return c.closeErr
}

func (c *core) client(agent agentHeader) *Client {
	t := *c.transport
	t.agent = agent
	return newClient(c, &t)
}

// observe turns the engine's reports into events and log records.
func (c *core) observe(e renew.Event[*preparedCredential]) {
	ev := Event{Time: time.Now(), Reason: e.Reason.String(), Took: e.Took, RetryAt: e.RetryAt}
	level := slog.LevelInfo
	switch e.Kind {
	case renew.Renewed:
		ev.Type = EventRenewed
	case renew.Confirmed:
		ev.Type = EventConfirmed
	case renew.Refused:
		ev.Type, level = EventRejected, slog.LevelWarn
	case renew.Failed:
		ev.Type, level = EventRenewalFailed, slog.LevelWarn
		ev.Err = c.creds.sourceError(e.Err)
	}
	if g := e.Generation; g != nil {
		ev = ev.using(g.Number, g.Value.cred, g.Expires)
		c.creds.seen.Store(g.Value)
	}
	if e.Prev != nil {
		ev.Previous = e.Prev.Value.cred.Fingerprint()
	}
	c.emit(level, ev)
}

// emit hands an event to the log and to the observer. Neither runs here: the
// engine reports while it holds its lock, and they may be slow, panic, or call the client.
func (c *core) emit(level slog.Level, ev Event) {
	if log := c.cfg.logger; log != nil {
		c.events.Put(func() {
			log.LogAttrs(context.Background(), level, messages[ev.Type], slog.Any("event", ev)) //nolint:sloglint // all messages are constants
		})
	}
	for _, i := range c.cfg.instruments {
		if i.Event != nil {
			c.events.Put(func() { i.Event(ev) })
		}
	}
}

// emitRotation reports a step of a key's life.
func (c *core) emitRotation(level slog.Level, t EventType, reason string, rec record.Key, err error) {
	ev := Event{Time: time.Now(), Type: t, Reason: reason, Generation: rec.Generation, Err: err}
	if cred := rec.Current.Credential; !cred.IsZero() {
		ev.Kind, ev.Fingerprint = Kind(cred.Kind()), cred.Fingerprint()
	}
	if !rec.Previous.IsZero() {
		ev.Previous = rec.Previous.Credential.Fingerprint()
	}
	c.emit(level, ev)
}

// emitWaiting reports that another process is rotating the key, and until when
// this process waits for it.
func (c *core) emitWaiting(rec record.Key, left time.Duration) {
	now := time.Now()
	c.emit(slog.LevelDebug, Event{
		Time: now, Type: EventRotating, Reason: waiting, Generation: rec.Generation, RetryAt: now.Add(left),
		Kind: Kind(rec.Current.Credential.Kind()), Fingerprint: rec.Current.Credential.Fingerprint(),
	})
}

// recordConfig describes the records of this client in a store.
func (c *core) recordConfig(store Store, agent string) record.Config {
	cfg := record.Config{
		Store: recordStore(store), Mismatch: newMismatch,
		Of: record.Identity{Origin: c.origins[0].String(), Environment: string(c.env), Agent: agent},
	}
	if c.cfg.logger != nil {
		cfg.Warn = c.warnOfStore
	}
	return cfg
}

// logPanics returns a function that logs the first panic of an instrumentation.
//
//nolint:contextcheck,nolintlint // the record belongs to no request; the callers of New would all be told to pass a context
func logPanics(c *core) func(value any) {
	var once sync.Once
	return func(value any) {
		once.Do(func() {
			if c.cfg.logger == nil {
				return
			}
			err := secret.PanicError("an instrumentation", value, c.creds.latest().Reveal())
			c.events.Put(func() {
				c.cfg.logger.LogAttrs(context.Background(), slog.LevelError, "agrenting: instrumentation panicked", slog.String("error", err.Error()))
			})
		})
	}
}

// warnOfStore logs what the store accepts although its user should change it.
func (c *core) warnOfStore(text string) {
	c.events.Put(func() {
		c.cfg.logger.LogAttrs(context.Background(), slog.LevelWarn, "agrenting: store is open to others", slog.String("warning", text))
	})
}

// tryOptions notes the option that gives the credential, if there is one.
func (c *envConfig) tryOptions(cfg *config) {
	src := cfg.source
	switch {
	case cfg.anonymous:
		c.sourceName = "WithAnonymous"
	case !cfg.credential.IsZero():
		c.sourceName, src = "WithCredential", Static(cfg.credential)
	case src != nil:
		c.sourceName = "WithCredentialSource"
	default:
		return
	}
	state := stateUsed
	if !c.usable(src) {
		state = stateUnusable
	}
	c.tried = append(c.tried, SourceState{Name: c.sourceName, State: state})
	if cfg.anonymous && cfg.keyStore() != nil {
		c.tried = append(c.tried, SourceState{Name: "WithStore", State: shadowedBy(c.sourceName)})
	}
}
