// Package rules holds the tests of what changes messages at the sending side, with real workers, a real Redis and real SMTP
// conversations: the settings for staging, and the hooks of a worker.
package rules
