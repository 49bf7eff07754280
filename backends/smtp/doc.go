// Package smtp delivers mail to an SMTP or LMTP server. It is a submission client
// that keeps its connection open and takes one round trip a message where
// the server offers PIPELINING (RFC 2920), next to none with CHUNKING (RFC
// 3030), which is used on request.
//
// # What it promises
//
// A message is reported as sent only if the server answered 250 to it as a whole
// (RFC 5321, 4.2.5), and each recipient that the server refused is reported. Every
// reply belongs to a command; when one does not fit, the connection is cut. A
// message is sent again by this package itself only if nothing of it can have been
// accepted. If the connection breaks in the moments between the octet that
// completes a message and the server's reply, nobody can know: that is
// reported as [mailer.Unknown].
//
// # Reading it
//
// A [Backend] takes messages from a queue and gives them to a conn, which runs a
// session: pipeline.go and chunk.go say what is sent and when it is waited,
// session.go matches replies to commands, verdict.go and classify.go say what
// each reply means. Below them the writer writes, and the link holds the time
// limits and the point of no return.
package smtp
