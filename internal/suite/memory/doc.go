// Package memory measures how much memory a worker takes, from outside: a real
// worker process, a real Redis and a mail server, and what Linux says of the worker's
// peak. It is all in tests: short ones for every day, and with -memory.full those of
// docs/performance.md.
package memory
