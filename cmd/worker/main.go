// Command worker takes mail from the queue and delivers it.
//
//	worker run      deliver mail until told to stop
//	worker check    print the settings, and try Redis and the mail server
//	worker demo     queue, worker and mail server in one process
//	worker dkim     make a key for DKIM, and print what the DNS has to publish
//	worker health   ask the worker on this machine whether it is alive
//	worker catch    a mail server that prints what it gets, for development
package main

import (
	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/cmd/worker/workercli"
)

func main() { workercli.Main(backends.Builtin()) }
