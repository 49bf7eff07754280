package mailpouch

import (
	"context"
	"errors"
	"time"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

// This file is where settings become configurations: which variable ends in which
// field. A test finds a setting that ends in none.

// QueueConfig is the queue that the settings describe.
func QueueConfig(s settings.Settings) tasks.QueueConfig {
	q := s.Queue
	return tasks.QueueConfig{
		Defaults:            backends.Defaults(s),
		TaskTimeout:         q.TaskTimeout,
		Mailers:             s.Mailers(),
		AttachmentThreshold: q.AttachmentThreshold.OrNever(),
		MaxMessageSize:      int(q.MaxMessageSize),
		IdempotencyWindow:   q.IdempotencyWindow,
		BulkSize:            q.BulkSize,
		Shards:              q.Shards,
		Events:              eventLog(s),
		Options:             Options(s, mailer.Options{}),
	}
}

// Options returns o with what it leaves open as the settings have it.
func Options(s settings.Settings, o mailer.Options) mailer.Options {
	return o.Or(mailer.Options{Queue: s.Queue.Name, MaxRetry: new(s.Queue.MaxRetry)})
}

// WorkerConfig is the worker that the settings describe, with the backends of a registry.
// Logger, Observers and Tracer are the caller's.
func WorkerConfig(ctx context.Context, s settings.Settings, registry backends.Registry) (tasks.WorkerConfig, error) {
	s.Message.Hostname = backends.Hostname(ctx, s)
	first, most, reply, err := workerMailers(s)
	if err != nil {
		return tasks.WorkerConfig{}, err
	}
	w := s.Worker
	connections, more := s.Connections()
	most[""] = more
	return tasks.WorkerConfig{
		Connect: func(name string) (mailer.Backend, error) {
			named, err := s.Named(name)
			if err != nil {
				return nil, err
			}
			return registry.New(named.Worker.Backend, named)
		},
		Mailers:         first,
		Failover:        workerFailover(s),
		Queues:          w.Queues,
		Connections:     connections,
		ConnectionsMax:  most,
		Rates:           workerRates(s),
		BatchSize:       w.BatchSize,
		Memory:          w.Memory.OrNever(),
		Shards:          s.Queue.Shards,
		RetryMin:        w.RetryMin,
		RetryMax:        w.RetryMax,
		MaxAge:          w.MaxAge,
		History:         workerHistory(w),
		Events:          eventLog(s),
		BatchTimeout:    w.BatchTimeout,
		ReplyTimeout:    reply,
		TaskTimeout:     s.Queue.TaskTimeout,
		ShutdownTimeout: w.ShutdownTimeout,
		ShowAddresses:   s.Log.ShowAddresses,
	}, nil
}

// workerFailover are the mailers that send with others.
func workerFailover(s settings.Settings) map[string]tasks.Failover {
	all := map[string]tasks.Failover{}
	for _, name := range append([]string{""}, s.Mailers()...) {
		named, err := s.Named(name)
		if err != nil {
			continue // workerMailers has said so
		}
		members, weighted := named.Failover()
		if len(members) == 0 {
			continue
		}
		f := tasks.Failover{Weighted: weighted}
		for _, m := range members {
			f.Members = append(f.Members, tasks.Member{Mailer: m.Name, Weight: m.Weight})
		}
		all[name] = f
	}
	return all
}

// workerRates are the rates of all mailers that have some.
func workerRates(s settings.Settings) map[string]tasks.Rates {
	all := map[string]tasks.Rates{}
	for _, name := range append([]string{""}, s.Mailers()...) {
		named, err := s.Named(name)
		if err != nil {
			continue // workerMailers has said so
		}
		r := named.Rates
		if len(r.Messages)+len(r.Recipients)+len(r.Domains)+r.Connections > 0 {
			all[name] = tasks.Rates{
				Messages: tasks.RateLimits(r.Messages), Recipients: tasks.RateLimits(r.Recipients),
				Connections: r.Connections, Domains: tasks.RateDomains(r.Domains),
			}
		}
	}
	return all
}

// eventLog is what is written down of what happens to messages.
func eventLog(s settings.Settings) tasks.EventLog {
	if !s.Events.On() {
		return tasks.EventLog{}
	}
	return tasks.EventLog{On: true, Size: int64(s.Events.Size)}
}

// workerHistory is what a worker keeps of messages that have ended.
func workerHistory(w settings.Worker) tasks.History {
	if w.History == 0 || w.HistorySize == 0 {
		return tasks.History{For: -1}
	}
	return tasks.History{For: w.History, Size: int64(w.HistorySize)}
}

// workerMailers returns how many connections each named mailer has at first and may come to have, and the longest time
// that one of all mailers may wait for the reply to a whole message. The error names every
// mailer that does not say where its mail goes.
func workerMailers(s settings.Settings) (first, most map[string]int, reply time.Duration, err error) {
	first, most, reply = map[string]int{}, map[string]int{}, s.SMTP.DataTimeout
	var problems settings.Problems
	for _, name := range s.Mailers() {
		named, err := s.Named(name)
		if these := (settings.Problems)(nil); errors.As(err, &these) {
			problems = append(problems, these...)
			continue
		} else if err != nil {
			return nil, nil, 0, err
		}
		first[name], most[name] = named.Connections()
		reply = max(reply, named.SMTP.DataTimeout)
	}
	if len(problems) > 0 {
		return nil, nil, 0, problems
	}
	return first, most, reply, nil
}
