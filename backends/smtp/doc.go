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
// A [Backend] takes messages from a batch and gives them to a session over a connection,
// which a dialer has opened:
//
//	backend.go                   Open, SendBatch, TrySender
//	  dial.go, auth.go           connect, EHLO, STARTTLS, login
//	  batch.go, message.go       what is to be sent, and what became of it
//	  pipeline.go                what is sent, and when to wait for replies
//	    session.go               commands go out, each reply finds its command
//	    verdict.go, errors.go    what a reply, or a broken connection, means
//	  conn.go, extensions.go     the connection, and what the server offers
//	    internal/transport       the socket: deadlines, writing, points of no return
//	    internal/auth            the mechanisms of a login
//
// A new SMTP extension is one entry in extensions.known, and its use.
package smtp
