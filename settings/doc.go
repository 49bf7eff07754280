// Package settings reads the environment of a program into typed [Settings].
//
// The variables carry Django's names and defaults where Django has them, so that the
// environment file of an existing deployment works. [Load] reads them once, at
// the start, checks them together and reports every problem at once ([Problems]),
// so that a wrong file needs to be corrected only once. An empty variable counts as not
// set, because a compose file passes on that way what its user left out. The exception is
// EMAIL_SUBJECT_PREFIX: empty means no prefix.
//
// EMAIL_MAILERS names more mailers beside the default one. [Settings.Named] returns the
// settings of one of them. Its backend, server and login are never the default mailer's. A
// [MailURL] (EMAIL_URL) sets all of these in one variable.
//
// Passwords ([Secret]) and URLs that hold one ([URL], [MailURL]) redact themselves wherever they
// are printed, logged or encoded; only Reveal returns them.
//
// Nothing else in this project reads the environment: backends and queues get a Config made
// from Settings.
package settings
