package main

import (
	"encoding/json"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// entry is one line of bulk: a message and how it waits in the queue.
type entry struct {
	message *mailer.EmailMessage
	options options
	queue   tasks.Options
}

// parseEntry reads a message in JSON, with the queue's options under "options", and
// checks all that can be checked before it is queued.
func parseEntry(line []byte, defaults mailer.Defaults, base options) (entry, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return entry{}, cli.Exitf(cli.ExitData, "not a message: %w", err)
	}
	e := entry{message: new(mailer.EmailMessage), options: base}
	if raw, ok := fields["options"]; ok {
		own, err := decodeOptions(raw)
		if err != nil {
			return entry{}, cli.Exit(cli.ExitData, err)
		}
		e.options = base.over(own)
		delete(fields, "options")
		if line, err = json.Marshal(fields); err != nil {
			return entry{}, cli.Exit(cli.ExitData, err)
		}
	}
	var err error
	if e.queue, err = e.options.read(); err != nil {
		return entry{}, cli.Exit(cli.ExitData, err)
	}
	if err := json.Unmarshal(line, e.message); err != nil {
		return entry{}, cli.Exit(cli.ExitData, err)
	}
	e.message = e.message.WithDefaults(defaults)
	return e, e.message.Validate()
}
