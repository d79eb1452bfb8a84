// Package filestore keeps each record of a store in a file, for the processes of
// one host.
//
// It defines the names and the layout of records in a folder, the revision of a
// file, and the difference between a missing record and a missing folder. It
// must not know what a record consists of, or which code reads it.
package filestore
