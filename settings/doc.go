// Package settings reads the environment of a program into typed [Settings].
//
// The variables carry Django's names and defaults where Django has them, so that the
// environment file of an existing deployment works. [Load] reads them once, at
// the start, checks them together and reports every problem at once ([Problems]),
// so that a wrong file is put right in one go. An empty variable is one that is not
// set, for that is how a compose file passes on what its user left out; only an empty
// EMAIL_SUBJECT_PREFIX means what it says.
//
// EMAIL_MAILERS names more mailers beside the default one. [Settings.Named] returns the
// settings as one of them has them. What says whom a mailer talks to, and as whom, is
// never the default mailer's. A [MailURL] (EMAIL_URL) says all of that in one variable.
//
// Passwords ([Secret]) and URLs that hold one ([URL], [MailURL]) redact themselves wherever they
// are printed, logged or encoded; only Reveal returns them.
//
// Nothing else in this project knows the environment: backends and queues get a
// Config made from Settings.
package settings
