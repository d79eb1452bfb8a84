// Package promagrenting exports metrics of clients of the Agrenting SDK to Prometheus.
//
//	metrics := promagrenting.New()
//	prometheus.MustRegister(metrics)
//	client, err := agrenting.New(metrics.Option(), agrenting.WithSession())
//
// # Metrics
//
// Requests of the program. A request is counted once, however often it is sent:
//
//	agrenting_requests_total{code}                   responses by status class ("2xx"), or "error" without a response
//	agrenting_request_duration_seconds               until the headers of the response, with all waiting
//	agrenting_retries_total                          sent again after a transient failure
//	agrenting_resends_total{reason}                  sent again after a 401: "same", "renewed", or "switched"
//	agrenting_requests_waiting                       waiting for a credential now
//	agrenting_rate_limit_remaining                   requests left in the window, by the last response that says so
//	agrenting_rate_limit_requests                    requests per window, by the last response that says so
//
// The reasons of a resend are those of [agrenting.AttemptInfo].
//
// Credentials:
//
//	agrenting_credential_state{state}                clients by the state of their credential, such as "ready"
//	agrenting_renewals_total{result,reason}          result is "renewed", "confirmed", or "failed"
//	agrenting_renewal_duration_seconds{result}       of renewals for which the source was asked
//	agrenting_rejections_total                       credentials that the platform refused
//	agrenting_exchange_duration_seconds{result}      calls that exchange a key for a session, "success" or "failure"
//	agrenting_internal_requests_total{purpose,code}  requests that the SDK makes itself, such as "exchange"
//	agrenting_credential_expiry_timestamp_seconds    when the next credential expires
//
// Keys in a store:
//
//	agrenting_rotations_total{stage,result}          rotations that ended: "success" or "failure", and at which stage
//	agrenting_key_age_seconds                        age of the key in the store
//	agrenting_key_due_timestamp_seconds              when the next key should be rotated; absent without a schedule
//	agrenting_key_overdue                            clients whose key should have been rotated
//	agrenting_store_failing                          clients whose last use of a store failed
//	agrenting_store_errors_total{operation}          "load", "save", "watch", or "adopt"
//
// The SDK itself:
//
//	agrenting_build_info{version}                    always 1
//
// Labels have few values: none is a path, a host, or a credential.
//
// # Several clients
//
// One [Metrics] may be given to any number of clients. Counters then add up,
// agrenting_credential_state counts the clients in each state, and
// agrenting_requests_waiting is the sum. agrenting_key_age_seconds is that of the oldest key.
// To tell clients apart, use a Metrics with its own [WithConstLabels] for each:
//
//	a := promagrenting.New(promagrenting.WithConstLabels(prometheus.Labels{"client": "billing"}))
//	b := promagrenting.New(promagrenting.WithConstLabels(prometheus.Labels{"client": "search"}))
package promagrenting
