// Package backends opens a backend by its name: "smtp", "console", or one of the
// program's own.
//
// A [Registry] is a value that a program makes, adds to and passes on; nothing
// registers itself. [Builtin] returns the backends that need nothing but settings.
// The queue is not among them, so that a program which only wants SMTP does not link
// Redis; a program that hands its mail to workers adds one line:
//
//	reg := backends.Builtin()
//	reg["queue"] = func(settings.Settings) (mailer.Backend, error) { return queue, nil }
package backends
