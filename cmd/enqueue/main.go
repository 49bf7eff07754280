// Command enqueue hands mail to the queue from a shell, a file or another program.
//
//	enqueue send --to ann@example.com --subject Hello --body "It works."
//	enqueue bulk messages.jsonl
//	enqueue render message.json
//	enqueue test ann@example.com
package main

import "github.com/mailpouch/mailpouch/internal/cli"

func main() { cli.Main(newCommand) }
