package agrenting

// WithCredentialOverride replaces the credential that a request already has, at the pinned
// origins: those of [WithBaseURL] and [WithAllowedOrigins]. It is for other SDKs that require
// their own key and accept an [net/http.Client]. Give them a placeholder as the key, and
// [Client.HTTPClient]:
//
//	other := openai.NewClient(
//		option.WithBaseURL(client.BaseURL()+"/v1/"),
//		option.WithAPIKey("unused"),
//		option.WithHTTPClient(client.HTTPClient()),
//		option.WithMaxRetries(0), // the SDK retries already
//	)
//
// All headers that carry a credential are replaced, in any spelling: Authorization, X-API-Key,
// and Api-Key. So neither the placeholder nor a real key of another platform reaches the
// pinned origins, and such requests are renewed, resent, and retried as all others. A
// credential that [CallHeader] sets is replaced, too. X-Agent-ID is not a credential, and is kept.
//
// Requests to all other origins are sent as without this option: with the credential that the
// caller has set, and never with that of the SDK. An anonymous client removes the
// credential at the pinned origins.
func WithCredentialOverride() Option {
	return func(cfg *config) error {
		cfg.override = true
		return nil
	}
}
