// Package environ reads the SDK's environment variables.
//
// It defines their names, which values they accept, and the order in which they
// are searched for a credential.
//
// It must not know options, sources of credentials, or the environment of the
// process: variables are read through a function.
package environ
