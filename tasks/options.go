package tasks

import "github.com/mailpouch/mailpouch/mailer"

// Options say how a message waits in the queue. They are those of a Mailer: see mailer.Options.
type Options = mailer.Options

// The errors of options, and those that say of a message what a queue knows of it.
type (
	// NameError is mailer.NameError.
	NameError = mailer.NameError
	// TagError is mailer.TagError.
	TagError = mailer.TagError
	// UnknownMailerError is mailer.UnknownMailerError.
	UnknownMailerError = mailer.UnknownMailerError
	// IdempotencyError is mailer.IdempotencyError.
	IdempotencyError = mailer.IdempotencyError
	// DeadLetterError is mailer.DeadLetterError.
	DeadLetterError = mailer.DeadLetterError
)

// The errors of Cancel and Reschedule: see mailer.ErrTooLate, mailer.ErrNoTask and mailer.ErrInBulk.
var (
	ErrTooLate = mailer.ErrTooLate
	ErrNoTask  = mailer.ErrNoTask
	ErrInBulk  = mailer.ErrInBulk
)

// DefaultMaxRetry is how many tries a message gets after its first one.
const DefaultMaxRetry = mailer.DefaultMaxRetry
