// Package seal encrypts small texts, and creates and reads the sealing keys of
// users. A sealed text is bound to its purpose: it cannot be opened for another
// purpose.
//
// It defines the encryption, the derivation of keys, and the written form of a
// sealing key. It must not know what is in a sealed text, where it is kept, or
// where a key comes from.
package seal
