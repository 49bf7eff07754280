package main

import (
	"bytes"
	"encoding/json"
	"errors"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// entry is one line of bulk: a message and how it waits in the queue.
type entry struct {
	message *mailer.EmailMessage
	queue   tasks.Options
	own     string // the line's own options as they were written: lines with the same have the same
}

// parseEntry reads a message in JSON, with the queue's options under "options". base
// are the options of lines that say nothing else.
func parseEntry(line []byte, base options) (entry, error) {
	e := entry{message: new(mailer.EmailMessage)}
	o := base
	if mayHaveOptions(line) {
		rest, own, err := cutOptions(line)
		if err != nil {
			return entry{}, err
		}
		if own != nil {
			line, e.own = rest, string(own)
			decoded, err := decodeOptions(own)
			if err != nil {
				return entry{}, cli.Exit(cli.ExitData, err)
			}
			o = base.over(decoded)
		}
	}
	var err error
	if e.queue, err = o.read(); err != nil {
		return entry{}, cli.Exit(cli.ExitData, err)
	}
	if err := e.message.UnmarshalJSON(line); err != nil {
		var invalid *mailer.InvalidMessageError
		if errors.As(err, &invalid) && invalid.Field == "message" {
			err = cli.Exitf(cli.ExitData, "not a message: %s", invalid.Reason)
		}
		return entry{}, err
	}
	base.lists.apply(e.message)
	return e, nil
}

// mayHaveOptions reports whether the options' key is in a line, if only in a text. It stops at quotes alone, of which most mails have few.
func mayHaveOptions(line []byte) bool {
	for {
		quote := bytes.IndexByte(line, '"')
		if quote < 0 {
			return false
		}
		line = line[quote:]
		if bytes.HasPrefix(line, []byte(`"options"`)) {
			return true
		}
		line = line[1:]
	}
}

// cutOptions takes the options out of a line. own is nil if it has none.
func cutOptions(line []byte) (rest []byte, own json.RawMessage, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return nil, nil, cli.Exitf(cli.ExitData, "not a message: %w", err)
	}
	own, ok := fields["options"]
	if !ok {
		return line, nil, nil
	}
	delete(fields, "options")
	if rest, err = json.Marshal(fields); err != nil {
		return nil, nil, cli.Exit(cli.ExitData, err)
	}
	return rest, own, nil
}
