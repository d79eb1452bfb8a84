// Package secret holds secrets so that printing, logging, encoding, and comparing
// them does not reveal them, and removes them from text that others wrote.
//
// It knows the kinds of credentials, their prefixes and marks, and what a secret
// looks like in a text.
//
// It must not know where a credential comes from, which header carries it, or who
// may receive it.
package secret
