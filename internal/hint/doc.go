// Package hint writes the texts that say what a person can do about a request that
// failed: which credential was rejected and where it comes from, or which setting is
// probably wrong. It also logs, once for each host, that a request gets no credential.
//
// It knows the names of options and variables. Its texts are complete sentences.
//
// It must not know clients, how a request is sent, or how a credential is obtained.
package hint
