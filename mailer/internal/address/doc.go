// Package address reads mail addresses and lists of them (RFC 5322, 3.4), as an author writes
// them and as a header has them, and turns their domains into punycode.
//
// What is wrong with an address is returned as a reason, a part of a sentence such as "is not an
// address", so that the caller can name the field. No reason ("") is an address that is good.
package address
