package main

import (
	"context"
	"errors"
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

// dead finds the selected letters and does the work on them.
func (a *app) dead(ctx context.Context, s selection, work func(context.Context, *tasks.DeadLetters, []*tasks.DeadLetter) error) error {
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
	places, err := findAll(ctx, d, queues)
	if err != nil {
		return err
	}
	if len(s.ids) > 0 {
		if places, err = pick(places, s.ids); err != nil {
			return err
		}
	}
	letters, err := summaries(d, places, s.reason)
	if err != nil {
		return err
	}
	return work(ctx, d, letters)
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

func findAll(ctx context.Context, d *tasks.DeadLetters, queues []string) ([]place, error) {
	var all []place
	for _, queue := range queues {
		ids, err := d.IDs(ctx, queue)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			all = append(all, place{queue, id})
		}
	}
	return all, nil
}

// shortestPrefix is how much of an ID has to be given.
const shortestPrefix = 4

// pick returns the dead letters with these IDs, or with IDs that begin so.
func pick(all []place, ids []string) ([]place, error) {
	var picked []place
	for _, id := range ids {
		var exact, begun []place
		for _, p := range all {
			switch {
			case p.id == id:
				exact = append(exact, p)
			case len(id) >= shortestPrefix && strings.HasPrefix(p.id, id):
				begun = append(begun, p)
			}
		}
		switch {
		case len(exact) > 0:
			picked = append(picked, exact...)
		case len(begun) == 1:
			picked = append(picked, begun...)
		case len(begun) > 1:
			return nil, cli.Exitf(cli.ExitData, "%s: %d dead letters have an ID that begins so: give more of it", id, len(begun))
		default:
			return nil, cli.Exitf(cli.ExitData, "%s: %w", id, tasks.ErrNotDead)
		}
	}
	return picked, nil
}

// summaries reads the letters whose reason contains a text.
func summaries(d *tasks.DeadLetters, places []place, reason string) ([]*tasks.DeadLetter, error) {
	var letters []*tasks.DeadLetter
	for _, p := range places {
		l, err := d.Summary(p.queue, p.id)
		if errors.Is(err, tasks.ErrNotDead) {
			continue // replayed meanwhile
		}
		if err != nil {
			return nil, err
		}
		if strings.Contains(l.Reason, reason) {
			letters = append(letters, l)
		}
	}
	return letters, nil
}
