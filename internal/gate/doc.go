// Package gate counts the requests of one generation that are on the wire, and
// makes new requests wait. A rotation in place closes the gate, waits until the
// requests inside have their responses, and replaces the key.
//
// It must not know what a generation is or which credential belongs to it.
package gate
