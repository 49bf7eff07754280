// Command enqueue hands mail to the queue from a shell, a file or another program.
//
//	enqueue send --to ann@example.com --subject Hello --body "It works."
//	enqueue bulk messages.jsonl
//	enqueue raw -t < message.eml       what sendmail(8) does, also under that name
//	enqueue render message.json        the finished message, unsent
//	enqueue test ann@example.com       Django's sendtestemail
//	enqueue cancel ID                  take a message back
//	enqueue dead list                  what could not be delivered
package main

import (
	"os"

	"github.com/mailpouch/mailpouch/internal/cli"
)

func main() {
	os.Args = append(os.Args[:min(len(os.Args), 1)], arguments(os.Args)...)
	cli.Main(newCommand)
}
