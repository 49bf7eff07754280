// Command enqueue hands mail to the queue from a shell, a file or another program.
//
//	enqueue send --to ann@example.com --subject Hello --body "It works."
//	enqueue bulk messages.jsonl
//	enqueue raw -t < message.eml       what sendmail(8) does, also under that name
//	enqueue render message.json        the finished message, unsent
//	enqueue test ann@example.com       Django's sendtestemail
//	enqueue cancel ID                  take a message back
//	enqueue reschedule ID TIME         send it at another time
//	enqueue status ID                  where a message is, or what became of it
//	enqueue history --to ADDRESS       the same for all messages to a recipient
//	enqueue pause --mailing july       send nothing of it until enqueue resume
//	enqueue dead list                  what could not be delivered
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
)

func main() {
	os.Args = append(os.Args[:min(len(os.Args), 1)], arguments(os.Args)...)
	cli.Main(newCommand)
}

func newCommand(std cli.Streams) *cobra.Command {
	root := &cobra.Command{
		Use:     "enqueue",
		Short:   "Hand mail to the queue",
		Version: cli.Version(),
		Long: `Hand mail to the queue. Worker processes take it from there and deliver it.

The queue is the Redis at REDIS_URL (redis://127.0.0.1:6379/0 if not set).
"worker check" shows all settings.

Exit codes: 0 done, 1 nothing is found, 64 usage, 65 a message is wrong or
cannot be cancelled, 66 a file cannot be read, 69 Redis cannot be reached, 75 try later
(a message that may have been queued, with an idempotency key only),
78 a setting is wrong.`,
		Example: `  enqueue send --to ann@example.com --subject Hello --body "It works."
  enqueue bulk messages.jsonl
  enqueue raw -t < message.eml
  echo '{"subject": "Hello", "body": "It works.", "to": ["ann@example.com"]}' | enqueue render -
  enqueue test ann@example.com`,
	}
	app := &app{std: std}
	root.AddCommand(app.sendCommand(), app.bulkCommand(), app.rawCommand(), app.renderCommand(), app.testCommand(), app.cancelCommand(), app.rescheduleCommand(), app.statusCommand(), app.historyCommand(),
		app.pauseCommand(), app.resumeCommand(), app.pausedCommand(), app.deadCommand())
	addCompletions(root)
	return root
}
