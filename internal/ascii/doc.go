// Package ascii compares and converts text by the letters of ASCII. Hosts, schemes, header
// names, and keywords must be compared in this way: Unicode's rules treat some other
// characters as the same letters, such as U+017F (long s) as "s" and U+212A (the Kelvin
// sign) as "k".
//
// It must not know what the text means.
package ascii
