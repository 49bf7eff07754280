// Package rawmessage reads finished messages (RFC 5322, MIME) and writes them again so that every
// mail server takes them: in ASCII and with lines that are short enough.
//
// [Split] cuts a message into [Fields] and a body. [StructureReason] refuses one that would cost
// too much memory to look at. A [Rewriter] writes one anew.
package rawmessage
