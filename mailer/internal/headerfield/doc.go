// Package headerfield knows how the value of each header field is built, and writes it: only text
// that people read becomes encoded words (RFC 2047, 5). An encoded word anywhere else, in a URL or
// a message ID, is an address that leads nowhere.
//
// [Write] writes a field by its name. What is wrong with a value is returned as a reason, a part
// of a sentence such as "is not a date", so that the caller can name the field. No reason ("") is
// a value that is good.
package headerfield
