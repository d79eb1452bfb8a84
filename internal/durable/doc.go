// Package durable keeps small secrets in files that survive crashes and that only
// their owner can read.
//
// It defines how a file is replaced atomically, synced to disk, and locked
// between processes, and which files and folders other users could read or
// replace. It must not know what is in a file or what the file is for.
package durable
