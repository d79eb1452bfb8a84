// Package durable keeps small secrets in files that survive crashes and that only
// their owner can read.
//
// It knows how a file is replaced atomically, synced to the disk and locked
// between processes, and which files and folders others could read or replace. It
// must not know what is in a file or what the file is for.
package durable
