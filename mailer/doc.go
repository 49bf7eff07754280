// Package mailer has the message, the contract of a backend that delivers it, and the functions
// that hand mail to a backend.
//
// It is Django's django.core.mail written as Go. A program makes an
// [EmailMessage], or lets [Mailer.SendMail] make one, and gives it to a
// [Backend]. A backend may speak SMTP, write to the console, keep the message in
// memory for a test, or put it in a queue from which a worker process delivers it;
// the program does not change.
//
// A [Mailer] has Django's functions: SendMail, SendMassMail, MailAdmins, MailManagers. Most
// programs get one made from their settings; [New] makes one from a function that returns
// backends. An error of sending is bad input ([IsBadInput]), or has a [Class] that tells what can
// be done about it ([ClassOf]).
//
// The package renders messages (RFC 5322, MIME) and refuses a value that would let the author of
// one field write another ([BadHeaderError]). It opens no connection, reads no environment and
// keeps no state.
package mailer
