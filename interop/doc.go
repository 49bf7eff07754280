// Package interop holds the tests that need other people's programs and modules: Django as
// the oracle of what a message means, enmime as an independent reader, go-mail as the
// measure of speed, Go's library of Standard Webhooks as a receiver, and Resend's SDK with a validator of
// OpenAPI as a client. It is a module of its own,
// so that none of them enters the module graph of those who use Mailpouch. Run it here:
//
//	go test .
//	go test -run '^$' -bench .
//
// TestDjango needs Debian's python3-django and is skipped where that is missing.
package interop
