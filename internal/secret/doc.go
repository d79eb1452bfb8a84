// Package secret holds secrets so that printing, logging, encoding, and comparing
// them does not reveal them. It also removes secrets from text that comes from
// outside.
//
// It defines the kinds of credentials, their prefixes and marks, and how a secret
// in a text is recognized.
//
// It must not know where a credential comes from, which header carries it, or who
// may receive it.
package secret
