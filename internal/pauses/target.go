package pauses

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// DefaultMailer is the name of the default mailer in a Target, whose other names are "".
const DefaultMailer = "default"

// Target is what is paused: a queue, of all mailers or of one; a mailer; or a mailing.
type Target struct {
	Queue   string `json:"queue,omitempty"`  // as programs call it, with all its parts
	Mailer  string `json:"mailer,omitempty"` // DefaultMailer is the one without a name
	Mailing string `json:"mailing,omitempty"`
}

// The kinds of targets.
const (
	KindQueue   = "queue" // of all mailers, or of one
	KindMailer  = "mailer"
	KindMailing = "mailing"
)

// Kind is what is paused: KindQueue, KindMailer or KindMailing.
func (t Target) Kind() string {
	switch {
	case t.Mailing != "":
		return KindMailing
	case t.Queue == "":
		return KindMailer
	}
	return KindQueue
}

// String names the target for people.
func (t Target) String() string {
	switch {
	case t.Mailing != "":
		return "mailing " + t.Mailing
	case t.Queue == "":
		return "mailer " + t.Mailer
	case t.Mailer == "":
		return "queue " + t.Queue
	}
	return "queue " + t.Queue + " of mailer " + t.Mailer
}

// Validate reports what is wrong with a target.
func (t Target) Validate() error {
	switch {
	case t == Target{}:
		return errors.New("tasks: nothing to pause: a queue, a mailer or a mailing is expected")
	case t.Mailing != "" && (t.Queue != "" || t.Mailer != ""):
		return errors.New("tasks: a mailing is paused in all queues and for all mailers: it cannot be named together with one")
	}
	for _, s := range []string{t.Queue, t.Mailer, t.Mailing} {
		if s != "" && !name.Is(s) {
			return fmt.Errorf("tasks: %q cannot be the name of a queue, a mailer or a mailing: use %s", s, name.Rule)
		}
	}
	return nil
}

// Covers reports whether messages of a mailing, "" if of none, in one of asynq's queues are paused with a target.
func Covers(t Target, name wire.QueueName, mailing string) bool {
	return t.covers(name) || t.Mailing != "" && t.Mailing == mailing
}

// covers reports whether the target is a queue or a mailer, and one of asynq's queues belongs to it.
func (t Target) covers(name wire.QueueName) bool {
	return t.Mailing == "" && (t.Queue == "" || t.Queue == name.Queue) && (t.Mailer == "" || t.Mailer == mailerOf(name))
}

// Pause is a target that is paused.
type Pause struct {
	Target

	By     string    `json:"by"` // a host's name, or AsynqTools
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

// AsynqTools is who has paused a queue with asynq's monitor or command line.
const AsynqTools = "asynq's tools"

// read reads the fields of wire.PausedKey.
func read(fields map[string]string) []Pause {
	list := make([]Pause, 0, len(fields))
	for _, data := range fields {
		var p Pause
		if json.Unmarshal([]byte(data), &p) == nil && p.Validate() == nil {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Pause) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.String(), b.String())) })
	return list
}

func mailerOf(name wire.QueueName) string {
	if name.Mailer == "" {
		return DefaultMailer
	}
	return name.Mailer
}
