// Package relays tests the worker with mail servers that set limits: to connections, to what one carries, and to logins. The
// conversations are real ones, and so is the Redis.
package relays
