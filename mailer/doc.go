// Package mailer is the message and the contract: what a mail is, what a
// backend that delivers it promises, and the functions that hand mail over.
//
// It is Django's django.core.mail written as Go. A program makes an
// [EmailMessage], or lets [Mailer.SendMail] make one, and gives it to a
// [Backend]. A backend may speak SMTP, write to the console, keep the message in
// memory for a test, or put it in a queue from which a worker process delivers it;
// the program does not change.
//
// [New] makes a [Mailer] of whatever gives out backends; most programs let
// backends.Registry.Mailer do it from their settings. A Mailer has Django's functions:
// SendMail, SendMassMail, MailAdmins, MailManagers. An error of theirs is bad input
// ([IsBadInput]), or has a [Class] that says what may be done about it ([ClassOf]).
//
// The package renders messages (RFC 5322, MIME) and refuses what would let the
// author of one field write another ([BadHeaderError]). It opens no
// connection, reads no environment and keeps no state.
package mailer
