package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// options are the queue's options as a command line and a line of bulk write them.
// Times are RFC 3339, durations as Go writes them.
type options struct {
	Queue      string `json:"queue"`
	ProcessAt  string `json:"process_at"`
	ProcessIn  string `json:"process_in"`
	MaxRetry   *int   `json:"max_retry"`
	Deadline   string `json:"deadline"`
	Retention  string `json:"retention"`
	Unique     string `json:"unique"`
	AtMostOnce *bool  `json:"at_most_once"`
	Using      string `json:"using"`
	Mailing    string `json:"mailing"`

	Tags           []string `json:"tags"`
	IdempotencyKey *string  `json:"idempotency_key"` // not nil: it was given, be it empty

	lists lists // of messages that say nothing of it
}

// addFlags gives a command the queue's options as flags.
func (o *options) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.Queue, "queue", "", "queue to put the message in (default: EMAIL_QUEUE)")
	f.StringVar(&o.Using, "using", "", "`name` of the mailer that is to deliver it, of EMAIL_MAILERS")
	f.StringVar(&o.ProcessAt, "process-at", "", "send it at this time, such as 2026-12-24T18:00:00Z")
	f.StringVar(&o.ProcessIn, "process-in", "", "send it after this time, such as 90m")
	f.Func("max-retry", "`number` of tries after the first one (default: EMAIL_MAX_RETRY)", func(s string) error {
		var n int
		if _, err := fmt.Sscan(s, &n); err != nil {
			return fmt.Errorf("%q is not a number", s)
		}
		o.MaxRetry = &n
		return nil
	})
	f.StringVar(&o.Deadline, "deadline", "", "do not send it after this time")
	f.BoolFunc("at-most-once", "rather lose it than send it twice", func(s string) error {
		yes, err := strconv.ParseBool(s)
		o.AtMostOnce = &yes
		return err
	})
	f.StringVar(&o.Retention, "retention", "", "keep the finished task and the server's reply this long, such as 24h")
	f.StringVar(&o.Unique, "unique", "", "do not queue the same content again until this long after it was sent, such as 1h")
	f.StringArrayVar(&o.Tags, "tag", nil, "`word` to find it by, in logs and among dead letters; may be given several times")
	cli.NameVar(f, &o.Mailing, "mailing", "`name` of the mailing that it belongs to")
}

// addKeyFlag is for commands that hand over one message: a key names one.
func (o *options) addKeyFlag(c *cobra.Command) {
	c.Flags().Func("idempotency-key", "`name` of this hand-over: the same message is queued once, however often it is handed over", func(s string) error {
		o.IdempotencyKey = &s
		return nil
	})
}

// read turns the texts into the queue's options and says which one is wrong.
func (o options) read() (tasks.Options, error) {
	out := tasks.Options{Using: o.Using, Queue: o.Queue, MaxRetry: o.MaxRetry, AtMostOnce: o.AtMostOnce != nil && *o.AtMostOnce, Tags: o.Tags, Mailing: o.Mailing}
	if out.Using == settings.DefaultMailer {
		out.Using = ""
	}
	for _, t := range []struct {
		name, text string
		value      *time.Time
	}{{"process_at", o.ProcessAt, &out.ProcessAt}, {"deadline", o.Deadline, &out.Deadline}} {
		if t.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, t.text)
		if err != nil {
			return out, fmt.Errorf("%s: %q is not a time such as 2026-12-24T18:00:00Z", t.name, t.text)
		}
		*t.value = at
	}
	for _, d := range []struct {
		name, text string
		value      *time.Duration
	}{{"process_in", o.ProcessIn, &out.ProcessIn}, {"retention", o.Retention, &out.Retention}, {"unique", o.Unique, &out.Unique}} {
		if d.text == "" {
			continue
		}
		length, err := time.ParseDuration(d.text)
		if err != nil {
			return out, fmt.Errorf("%s: %q is not a duration such as 90m or 24h", d.name, d.text)
		}
		*d.value = length
	}
	if o.IdempotencyKey != nil {
		if out.IdempotencyKey = *o.IdempotencyKey; out.IdempotencyKey == "" {
			return out, errors.New("idempotency_key: is empty, and would protect nothing")
		}
	}
	return out, out.Validate()
}

// over returns o, overruled by what is set in other.
func (o options) over(other options) options {
	set := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	set(&o.Queue, other.Queue)
	set(&o.Using, other.Using)
	if other.ProcessAt != "" || other.ProcessIn != "" {
		o.ProcessAt, o.ProcessIn = other.ProcessAt, other.ProcessIn
	}
	set(&o.Deadline, other.Deadline)
	set(&o.Retention, other.Retention)
	if other.Unique != "" || other.IdempotencyKey != nil { // they exclude each other
		o.Unique, o.IdempotencyKey = other.Unique, other.IdempotencyKey
	}
	set(&o.Mailing, other.Mailing)
	if other.Tags != nil {
		o.Tags = other.Tags
	}
	if other.MaxRetry != nil {
		o.MaxRetry = other.MaxRetry
	}
	if other.AtMostOnce != nil {
		o.AtMostOnce = other.AtMostOnce
	}
	return o
}

// decodeOptions reads the "options" of a line of bulk.
func decodeOptions(data json.RawMessage) (options, error) {
	var o options
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&o); err != nil {
		return o, fmt.Errorf("options: %w", err)
	}
	return o, nil
}
