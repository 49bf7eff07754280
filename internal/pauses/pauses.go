// Package pauses pauses queues, mailers and mailings, and keeps all parts of a queue as paused as one of them.
//
// What is paused is in one hash of Redis, with who did it, when and why. In the slot of each of asynq's queues there is what
// that means for it: asynq's own key of a paused queue, and a hash with the paused mailings (internal/asynqbatch). Whoever
// pauses writes both, and workers compare them twice a second ([Keep]): a part of a queue that is new is paused too, and what
// is done with asynq's own tools, which know one part of a queue each, is done to the others.
//
//	enqueue pause --queue bulk      hash: queue bulk  ->  bulk  bulk:mass  bulk~2  marketing.bulk ...
//	asynq's tools pause bulk        bulk              ->  hash: queue bulk of mailer default  ->  bulk:mass ...
package pauses

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/internal/redisconn"
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

// UnknownError reports a queue or a mailer that there is none of.
type UnknownError struct {
	Target Target
	Known  []string // queues, or mailers
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("tasks: there is no %s (there are %s)", e.Target, strings.Join(e.Known, ", "))
}

// Set pauses something, in all queues that there are. If it is paused already it stays as it is, and that pause is returned.
// A queue or a mailer without a queue in Redis is an UnknownError.
func Set(ctx context.Context, client redis.UniversalClient, p Pause) (before *Pause, err error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	names, err := queueNames(ctx, client)
	if err != nil {
		return nil, err
	}
	if p.Mailing == "" && !slices.ContainsFunc(names, func(name string) bool { return p.covers(wire.ParseQueueName(name)) }) {
		return nil, &UnknownError{p.Target, known(p.Target, names)}
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	fresh, err := client.HSetNX(ctx, wire.PausedKey, p.Target.String(), data).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	list, err := Keep(ctx, client, names)
	if err != nil {
		return nil, err
	}
	for _, other := range list.all {
		if !fresh && other.Target == p.Target {
			return &other, nil
		}
	}
	return nil, nil
}

// known are the names that a target could have had.
func known(t Target, names []string) []string {
	var list []string
	for _, name := range names {
		n := wire.ParseQueueName(name)
		switch {
		case t.Queue == "":
			list = append(list, mailerOf(n))
		case t.Mailer == "" || t.Mailer == mailerOf(n):
			list = append(list, n.Queue)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// End ends the pause of a target, and brings back what was set aside. It is false if there was none.
func End(ctx context.Context, client redis.UniversalClient, t Target) (ended bool, err error) {
	if err := t.Validate(); err != nil {
		return false, err
	}
	n, err := client.HDel(ctx, wire.PausedKey, t.String()).Result()
	if err != nil {
		return false, redisconn.Unavailable(err)
	}
	names, err := queueNames(ctx, client)
	if err != nil {
		return false, err
	}
	if _, err := Keep(ctx, client, names); err != nil { // also if there was none: somebody may have died in the middle
		return false, err
	}
	return n > 0, wake(ctx, client, names)
}

// wake tells workers which queues have tasks.
func wake(ctx context.Context, client redis.UniversalClient, names []string) error {
	pending := make([]*redis.IntCmd, len(names))
	_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, name := range names {
			pending[i] = pipe.Exists(ctx, "asynq:{"+name+"}:pending")
		}
		return nil
	})
	if err == nil {
		_, err = client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i, name := range names {
				if pending[i].Val() > 0 {
					pipe.Publish(ctx, wire.WakeChannel, name)
				}
			}
			return nil
		})
	}
	if err != nil {
		return redisconn.Unavailable(err)
	}
	return nil
}

// List returns all pauses, the oldest first.
func List(ctx context.Context, client redis.UniversalClient) ([]Pause, error) {
	fields, err := client.HGetAll(ctx, wire.PausedKey).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	return read(fields), nil
}

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

// queueNames are the names of all queues of ours, as asynq has them.
func queueNames(ctx context.Context, client redis.UniversalClient) ([]string, error) {
	names, err := client.SMembers(ctx, wire.QueuesKey).Result()
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return wire.ParseQueueName(name).String() != name }), nil
}
