// Package filestore keeps each record of a store in a file, for the processes of
// one host.
//
// It knows how records are named and laid out in a folder, what revision a file
// has, and how to tell a missing record from a missing folder. It must not know
// what a record consists of, or who reads it.
package filestore
