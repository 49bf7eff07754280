// Package backends opens a backend by its name: "smtp", "console", or one of the
// program's own.
//
// A [Registry] is a value that a program makes, adds to and passes on; nothing
// registers itself. [Builtin] returns the backends that need nothing but settings.
// The queue is not among them, so that a program which only wants SMTP does not link
// Redis; the package mailpouch adds it for a program that hands its mail to workers:
//
//	app, err := mailpouch.New(ctx, s, mailpouch.Config{Registry: reg})
//
// Settings may describe several mailers (EMAIL_MAILERS). Registry.Mailer finds the one
// that a call names; a program without a Mailer asks for its settings:
//
//	named, err := s.Named("marketing")
//	b, err := reg.New(named.Delivery.Backend, named)
package backends
