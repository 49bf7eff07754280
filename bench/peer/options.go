package main

import "time"

// options are the command line.
type options struct {
	redis       string
	smtp        string
	connections int
	concurrency int
	interval    time.Duration
	mails       int
}
