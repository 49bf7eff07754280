// Package corpus sends finished messages of a directory through the whole way, enqueue raw, queue,
// worker and a mail server, and compares what a reader sees of each before and after.
//
// make test does so with the few in testdata; make corpus DIR=... with any others.
package corpus
