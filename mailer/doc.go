// Package mailer is the message and the contract: what a mail is, what a
// backend that delivers it promises, and the functions that hand mail over.
//
// It is Django's django.core.mail written as Go. A program makes an
// [EmailMessage], or lets [Mailer.SendMail] make one, and gives it to a
// [Backend]. A backend may speak SMTP, write to the console, keep the message in
// memory for a test, or put it in a queue from which a worker process delivers it;
// the program does not change.
//
// The package renders messages (RFC 5322, MIME) and refuses what would let the
// author of one field write another ([BadHeaderError]). It opens no
// connection, reads no environment and keeps no state.
package mailer
