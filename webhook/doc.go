// Package webhook verifies webhooks of the platform. A [Verifier] passes only signed
// deliveries to your handler:
//
//	secret, err := webhook.ParseSecret(os.Getenv("WEBHOOK_SECRET"))
//	// …
//	v, err := webhook.NewVerifier([]webhook.Secret{secret})
//	// …
//	http.Handle("POST /hook", v.Handler(handler)) // which calls webhook.FromContext
//
// The package works without a client. It must not import package agrenting.
package webhook
