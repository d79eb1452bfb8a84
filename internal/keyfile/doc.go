// Package keyfile reads a credential from a file and follows its changes. It defines
// which files are acceptable, how a change is recognized, and which credential is
// returned while the file is bad.
//
// It must not know what the credential is used for or when it is asked for again.
package keyfile
