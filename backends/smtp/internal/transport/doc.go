// Package transport writes and reads what goes over an SMTP connection, and knows when a
// message that was written can no longer be taken back. It knows no messages and
// no commands: whoever fills a [Buffer] marks in it the [Point] behind which a message of his is
// complete, and asks the [Link] about it later.
//
//	session --- Buffer ---> Writer ---> Link ---> the server
//	   ^                                 |
//	   +--------- Reply <--- Reader <----+
//
// The link alone sets deadlines, and it alone knows what is in doubt.
package transport
