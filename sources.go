package agrenting

// Sources lists where [New] would look for a credential with these options, in
// the order of precedence, and how each source is found: used, shadowed, not
// set, or set to something that cannot be used. It is for diagnosis and works
// where New fails: an option or a variable that New refuses is passed over.
// Unlike New it looks at the environment's credentials also when an option gives
// the credential.
//
// It makes no request, asks no source, reads no file, and shows no value. That a
// source is used does not say that the platform takes its credential; see
// [Client.Verify].
func Sources(opts ...Option) []SourceState {
	cfg := defaultConfig()
	for _, opt := range opts {
		if opt != nil {
			_ = opt(cfg) // New reports it
		}
	}
	env := envReader{lookup: cfg.lookup}
	found := envConfig{environment: cfg.env}
	if e, err := ParseEnvironment(env.get(envVarEnvironment)); cfg.env == "" && err == nil {
		found.environment = e
	}
	unmarked := cfg.unmarkedSandbox
	found.usable = func(src CredentialSource) bool {
		fixed, ok := src.(*staticSource)
		return !ok || checkEnvironment(found.environment, fixed.credential, unmarked) == nil
	}
	found.tryOptions(cfg)
	if !unmarked && !cfg.explicit() {
		unmarked, _ = env.unmarkedTokens()
	}
	kind, _ := env.kind()
	_ = found.findSource(env, kind) // a survey has no errors
	if cfg.keyStore() == nil || cfg.anonymous {
		return found.tried
	}
	for i, s := range found.tried {
		if s.Used() {
			found.tried[i].State = stateSeeds
		}
	}
	return append([]SourceState{{Name: "WithStore", State: stateUsed}}, found.tried...)
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
