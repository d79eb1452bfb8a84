// Package hint words what a person can do about a request that failed: which credential
// was rejected and where it comes from, or which setting is probably wrong.
//
// It knows the names of options and variables. Its texts are sentences.
//
// It must not know requests, clients, or secrets: it is given facts.
package hint
