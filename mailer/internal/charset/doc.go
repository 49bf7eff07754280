// Package charset turns the texts of a mail into bytes: in a charset that mail can use (RFC 2046,
// 4.1.2), and in encoded words (RFC 2047) where a header has to be ASCII. It also tells which
// texts may stand in a header at all.
package charset
