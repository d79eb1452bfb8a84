// Package sample has the switch between all scenarios of a test and a sample of them. It
// does not import the SDK, so tests of every package can use it.
package sample
