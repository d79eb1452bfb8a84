// Package otelagrenting traces and measures clients of the Agrenting SDK with OpenTelemetry.
//
//	client, err := agrenting.New(otelagrenting.Option(), agrenting.WithSession())
//
// It uses the global providers unless [WithTracerProvider] or [WithMeterProvider] is given.
//
// # Spans
//
// Each request of the program has a span of the kind "internal" named "agrenting GET". Each
// time that the request is sent, there is a span of the kind "client" named "GET" below it,
// with the attributes of the semantic conventions for HTTP clients
// (http.request.method, url.full, server.address, server.port, http.response.status_code,
// http.request.resend_count, error.type) and
//
//	agrenting.attempt.reason         "first", "retry", "same", "renewed", or "switched"; see agrenting.AttemptInfo
//	agrenting.credential.generation  number of the credential
//	agrenting.credential.kind        "api_key", "session", or "user_token"
//	agrenting.credential.fingerprint
//	agrenting.credential.source      such as "AGRENTING_API_KEY"
//	agrenting.credential.wait        how long the attempt waited for it, in seconds; absent below 1 ms
//
// The span of the request has agrenting.attempts and agrenting.request_id. Requests that the
// SDK makes itself have such spans too, named after their purpose, for example "agrenting
// exchange". An exchange of a key for a session begins its own trace, because many requests
// may wait for it.
//
// A span ends when the headers of the response have arrived. Reading the body is not a part
// of it, except for the responses of [agrenting.Client.Do].
//
// # Propagation
//
// Nothing is added to requests. To send the context of the spans to the platform, pass a base
// transport through [Propagate], or use otelhttp.NewTransport as the base, whose spans are
// then below those of the attempts.
//
// # Metrics
//
//	agrenting.request.duration    s           histogram; http.request.method, http.response.status_code, error.type, agrenting.purpose
//	agrenting.resends             {resend}    requests sent again after a 401; agrenting.attempt.reason
//	agrenting.retries             {retry}     requests sent again after a transient failure
//	agrenting.requests.waiting    {request}   requests that wait for a credential now
//	agrenting.rate_limit.remaining {request}  left in the window, by the last response to the program that says so
//	agrenting.renewal.duration    s           histogram; agrenting.result ("renewed", "confirmed", "failed"), agrenting.reason
//	agrenting.rejections          {rejection} credentials in use that the platform refused
//	agrenting.rotations           {rotation}  agrenting.rotation.stage ("done", or the one that failed), agrenting.result
//	agrenting.store.errors        {error}     agrenting.store.operation
//	agrenting.clients             {client}    clients by agrenting.credential.state
//	agrenting.key.age             s           age of the API key in the store
//	agrenting.key.overdue         {key}       keys that should have been rotated
//
// Exchanges of a key for a session are those of agrenting.request.duration whose
// agrenting.purpose is "exchange". The duration of each sending is not measured, because
// otelhttp as a base does this as http.client.request.duration. Metrics have no paths and no
// hosts as attributes.
//
// # Secrets
//
// No span and no metric has a credential, a header, or a query string. Errors are recorded by
// their type, because their texts may quote what a server sent.
package otelagrenting
