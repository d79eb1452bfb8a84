// Package keyfile reads a credential from a file and follows its changes. It knows
// which files are acceptable, how to recognize a change, and what to serve while the
// file is bad.
//
// It must not know what the credential is used for or when it is asked for again.
package keyfile
