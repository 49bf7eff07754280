package main

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

// selection is which dead letters a command is about.
type selection struct {
	ids    []string // or their beginnings
	queue  string
	reason string
	all    bool
}

// letters are the dead letters that a command is about. There may be any number of them, so one at a time is in memory.
type letters struct {
	all  iter.Seq2[*tasks.DeadLetter, error] // without their big contents; it ends with an error
	most int                                 // how many there are, at most
}

// dead finds the selected letters and does the work on them.
func (a *app) dead(ctx context.Context, s selection, work func(context.Context, *tasks.DeadLetters, letters) error) error {
	if len(s.ids) == 0 && s.reason == "" && !s.all {
		return cli.Exitf(cli.ExitUsage, "which ones? give IDs, --reason or --all")
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	d := tasks.NewDeadLetters(a.pouch.Redis)
	queues, err := a.deadQueues(d, s.queue)
	if err != nil {
		return err
	}
	found := letters{}
	places := everyPlace(ctx, d, queues)
	if len(s.ids) > 0 {
		picked, err := pick(places, s.ids)
		if err != nil {
			return err
		}
		places, found.most = listed(picked), len(picked)
	} else if found.most, err = count(ctx, d, queues); err != nil {
		return err
	}
	found.all = summaries(d, places, s.reason)
	return work(ctx, d, found)
}

// count returns how many dead letters there are in these queues.
func count(ctx context.Context, d *tasks.DeadLetters, queues []string) (int, error) {
	sum := 0
	for _, q := range queues {
		n, err := d.Count(ctx, q)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// deadQueues returns asynq's queues to look at: all, or those that belong to the named queue,
// of every mailer and shard. A name that neither Redis nor the settings know is an error.
func (a *app) deadQueues(d *tasks.DeadLetters, name string) ([]string, error) {
	queues, err := d.Queues()
	if err != nil || name == "" {
		return queues, err
	}
	known := slices.Sorted(maps.Keys(a.settings.Worker.Queues))
	var found []string
	for _, q := range queues {
		plain := wire.ParseQueueName(q).Queue
		if q == name || plain == name {
			found = append(found, q)
		}
		known = append(known, plain)
	}
	if slices.Sort(known); len(found) == 0 && !slices.Contains(known, name) {
		return nil, cli.Exitf(cli.ExitData, "there is no queue %q (there are %s)", name, strings.Join(slices.Compact(known), ", "))
	}
	return found, nil
}

// place is where a dead letter is.
type place struct{ queue, id string }

// everyPlace yields the places of all dead letters of these queues. It ends with an error.
func everyPlace(ctx context.Context, d *tasks.DeadLetters, queues []string) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		for _, queue := range queues {
			for id, err := range d.EachID(ctx, queue) {
				if !yield(place{queue, id}, err) || err != nil {
					return
				}
			}
		}
	}
}

func listed(places []place) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		for _, p := range places {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// shortestPrefix is how much of an ID has to be given.
const shortestPrefix = 4

// pick returns the dead letters with these IDs, or with IDs that begin so.
func pick(all iter.Seq2[place, error], ids []string) ([]place, error) {
	exact, begun := make([][]place, len(ids)), make([][]place, len(ids))
	for p, err := range all {
		if err != nil {
			return nil, err
		}
		for i, id := range ids {
			switch {
			case p.id == id:
				exact[i] = append(exact[i], p)
			case len(id) >= shortestPrefix && strings.HasPrefix(p.id, id):
				begun[i] = append(begun[i], p)
			}
		}
	}
	var picked []place
	for i, id := range ids {
		switch {
		case len(exact[i]) > 0:
			picked = append(picked, exact[i]...)
		case len(begun[i]) == 1:
			picked = append(picked, begun[i]...)
		case len(begun[i]) > 1:
			return nil, cli.Exitf(cli.ExitData, "%s: %d dead letters have an ID that begins so: give more of it", id, len(begun[i]))
		default:
			return nil, cli.Exitf(cli.ExitData, "%s: %w", id, tasks.ErrNotDead)
		}
	}
	return picked, nil
}

// summaries reads the letters whose reason contains a text, one after the other.
func summaries(d *tasks.DeadLetters, places iter.Seq2[place, error], reason string) iter.Seq2[*tasks.DeadLetter, error] {
	return func(yield func(*tasks.DeadLetter, error) bool) {
		for p, err := range places {
			var l *tasks.DeadLetter
			if err == nil {
				l, err = d.Summary(p.queue, p.id)
			}
			switch {
			case errors.Is(err, tasks.ErrNotDead): // replayed meanwhile
			case err != nil:
				yield(nil, err)
				return
			case strings.Contains(l.Reason, reason) && !yield(l, nil):
				return
			}
		}
	}
}
