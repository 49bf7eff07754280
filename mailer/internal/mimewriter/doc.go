// Package mimewriter writes the text of a mail: header fields, folded and encoded (RFC 5322, RFC
// 2047, RFC 2231), and the content of MIME parts in a transfer encoding (RFC 2045).
//
// It knows no messages. A [Header] writes fields into a buffer; a [Writer] is a Header that also
// writes contents of any size, piece by piece. Whoever calls them has checked what they write:
// no text may have control characters ([charset.IsClean]).
package mimewriter
