package main

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

// selection is which dead letters a command is about.
type selection struct {
	ids    []string // or their beginnings
	given  map[string]*string
	filter tasks.Filter
	all    bool
}

// filters are the flags that say which letters are meant, with what tasks.Filter calls them.
var filters = []struct{ flag, field, usage string }{
	{"queue", "queue", "those of this `queue` only"},
	{"using", "mailer", "those of this `mailer`; default is the one without a name"},
	{"reason", "reason", "those whose reason contains this `text`, in whatever case"},
	{"to", "to", "those to this `address`, to all of @example.com, or whose address contains a text without @"},
	{"subject", "subject", "those whose subject contains this `text`, in whatever case"},
	{"tag", "tag", "those with this `tag`"},
	{"mailing", "mailing", "those of this mailing, by its `name`"},
	{"since", "since", "those that failed last after this `time`, day (2026-11-26), or so long ago (36h, 7d) or less"},
	{"until", "until", "those that failed last before this `time`"},
}

// flags adds the flags of a selection to a command.
func (s *selection) flags(c *cobra.Command) {
	s.given = map[string]*string{}
	for _, f := range filters {
		s.given[f.flag] = new(string)
		cli.NameVar(c.Flags(), s.given[f.flag], f.flag, f.usage)
	}
}

// read reads the flags. It reports whether one of them was given that chooses among the letters of a queue.
func (s *selection) read(now time.Time) (chooses bool, err error) {
	for _, f := range filters {
		value := *s.given[f.flag]
		if err := s.filter.Set(f.field, value, now); err != nil {
			wrong := new(tasks.FilterError)
			if errors.As(err, &wrong) {
				return false, cli.Exitf(cli.ExitUsage, "--%s: %s", f.flag, wrong.Reason)
			}
			return false, err
		}
		chooses = chooses || value != "" && f.flag != "queue" && f.flag != "using"
	}
	return chooses, nil
}

// letters are the dead letters that a command is about. There may be any number of them, so one at a time is in memory.
type letters struct {
	all  iter.Seq2[*tasks.DeadLetter, error] // without their big contents; it ends with an error
	most int                                 // how many there are, at most
}

// dead finds the selected letters and does the work on them.
func (a *app) dead(ctx context.Context, s selection, work func(context.Context, *tasks.DeadLetters, letters) error) error {
	chooses, err := s.read(time.Now())
	if err != nil {
		return err
	}
	if len(s.ids) == 0 && !chooses && !s.all {
		return cli.Exitf(cli.ExitUsage, "which ones? give IDs, --reason, --to or another filter, or --all")
	}
	if err := a.connect(ctx); err != nil {
		return err
	}
	defer a.close()
	d := tasks.NewDeadLetters(a.pouch.Redis)
	queues, err := a.deadQueues(d, s.filter)
	if err != nil {
		return err
	}
	found := letters{all: d.Each(ctx, s.filter)}
	if len(s.ids) > 0 {
		picked, err := pick(everyPlace(ctx, d, queues), s.ids)
		if err != nil {
			return err
		}
		found = letters{summaries(d, picked, s.filter), len(picked)}
	} else if found.most, err = count(ctx, d, queues); err != nil {
		return err
	}
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

// deadQueues returns asynq's queues that a filter means. A queue or mailer that neither Redis nor the settings know is
// an error.
func (a *app) deadQueues(d *tasks.DeadLetters, f tasks.Filter) ([]string, error) {
	all, err := d.Queues()
	if err != nil {
		return nil, err
	}
	queues := slices.Sorted(maps.Keys(a.settings.Worker.Queues))
	mailers := append(a.settings.Mailers(), "default")
	for _, q := range all {
		name := wire.ParseQueueName(q)
		queues = append(queues, name.Queue)
		if name.Mailer != "" {
			mailers = append(mailers, name.Mailer)
		}
	}
	if !known(queues, f.Queue) && !slices.Contains(all, f.Queue) {
		return nil, cli.Exitf(cli.ExitData, "there is no queue %q (there are %s)", f.Queue, list(queues))
	}
	if !known(mailers, f.Mailer) {
		return nil, cli.Exitf(cli.ExitData, "there is no mailer %q (there are %s)", f.Mailer, list(mailers))
	}
	return slices.DeleteFunc(all, func(q string) bool { return !f.HasQueue(q) }), nil
}

func known(names []string, name string) bool { return name == "" || slices.Contains(names, name) }

func list(names []string) string {
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
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

// summaries reads those letters in these places that a filter means, one after the other.
func summaries(d *tasks.DeadLetters, places []place, f tasks.Filter) iter.Seq2[*tasks.DeadLetter, error] {
	return func(yield func(*tasks.DeadLetter, error) bool) {
		for _, p := range places {
			l, err := d.Summary(p.queue, p.id)
			switch {
			case errors.Is(err, tasks.ErrNotDead): // replayed meanwhile
			case err != nil:
				yield(nil, err)
				return
			case f.Matches(l) && !yield(l, nil):
				return
			}
		}
	}
}
