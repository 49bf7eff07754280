package tasks

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// WorkerConfig configures a Worker. Connect is required; the rest has defaults.
type WorkerConfig struct {
	// Connect returns a new backend of the mailer with that name, "" for the default
	// one. It is called once for each connection, and once more at each Worker.Reconnect.
	Connect func(mailer string) (mailer.Backend, error)

	// Mailers are the named mailers that the worker serves beside the default one, and
	// how many connections each has: Connections if zero.
	Mailers map[string]int

	// Failover has the mailers that send with others, their members, by name, "" for the default one. Connect and the
	// numbers of connections do not count for them.
	Failover map[string]Failover

	// Queues are the queues' names and their weights: {"default": 1} if empty. If
	// there are several, each mailer has one more connection, for the one of the highest
	// weight alone, opened when that has mail.
	Queues      map[string]int
	Connections int // to the default mailer's relay: 4 if zero

	// ConnectionsMax is how many connections a mailer's may become by themselves, by its name, "" for the default one: one more
	// a second while mail waits and they bring more, fewer again when they have nothing to do. Those of a mailer that is not in
	// it keep their number, and so they do if that is not lower.
	ConnectionsMax map[string]int

	// Rates are those of the mailers' relays, by name, "" for the default one: what all workers on this Redis may send together.
	// They have to say the same.
	Rates map[string]Rates

	BatchSize int // messages a connection takes at once, at most: 100 if zero

	// Concurrency is how many tasks wait in the worker or are on the wire at once, for each
	// mailer: Connections*BatchSize if zero, but half of that, and at least 400, where it is more than 400.
	Concurrency int

	// Memory is how many bytes big messages in flight may take: 256,000,000 if zero, no
	// limit if negative. A message counts with two to five times its content, for what is
	// made of it. Each mailer has an equal part, and of that each connection: one for the queue
	// of the highest weight, the others for the other queues. A message that is bigger than its
	// part is sent alone. Messages of up to 64 kB do not count.
	Memory int

	// Shards is how many parts each queue is in, as QueueConfig.Shards says. What is still in the queue in one piece is
	// taken too, and parts that producers have beyond that are found within a few seconds.
	Shards int

	RetryMin time.Duration // shortest pause before another try: 5 s if zero
	RetryMax time.Duration // longest one: 1 h if zero
	MaxAge   time.Duration // after this a message that could not be sent is a dead letter: 120 h if zero

	// History is what is kept of messages that have ended. All workers of a Redis should say the same.
	History History

	// Events has it written what happens to messages, for Events to read. All workers and programs of a Redis should say the same.
	Events EventLog

	// BatchTimeout is for how long messages of a batch begin: 2 min if zero. Those whose turn has not come by then go to
	// other connections, or into the next batch, untried. One that has begun goes on, under its backend's own time limits. A
	// backend that is no mailer.BatchSender has this time for the whole batch. It is longer than one SMTP
	// command may take.
	BatchTimeout time.Duration

	// ReplyTimeout is how long a backend may go on waiting for the reply to a message
	// that it has sent whole, when its batch's time is up: 10 min if zero.
	ReplyTimeout time.Duration

	// TaskTimeout is how long the worker keeps a task that it cannot send before it gives it back to
	// the queue: 30 min if zero, and at least ReplyTimeout and two BatchTimeouts. What is on
	// the wire is kept until it has its reply. The task's own time-out, of the program that
	// handed it over, does not count.
	TaskTimeout time.Duration

	// ShutdownTimeout is how long what is on the wire may take to end after Run's
	// context has: 2 min 30 s if zero. Run returns a few seconds after that at the latest.
	ShutdownTimeout time.Duration

	Logger        *zerolog.Logger // no logs if nil
	ShowAddresses bool            // log mail addresses in full, instead of their first letter and their domain

	turnPatience  time.Duration // how long a message may take until idle connections get those behind it: 1 s if zero
	stillPatience time.Duration // how long a relay may say nothing, over all connections, until messages of a mailer that has other members too go to these: 10 s if zero
	openPatience  time.Duration // how long the only connection may take to open until messages go back: 2 s if zero

	// BeforeSend are hooks that may change, redirect or stop each message right before it is sent, in this order.
	BeforeSend []BeforeSend

	Observers []Observer
	Tracer    Tracer // no traces if nil

	Version string // that the worker gives in Redis, for the pages of all workers

	clock                        asynqbatch.Clock // the system's if nil; for tests
	lookEvery                    time.Duration    // how often an asynq server looks for tasks that no hint tells it of
	restAfter                    time.Duration    // how long a mailer's asynq servers run without mail
	rateSlowPause, rateRaiseWait time.Duration    // those of ratelimit.Config

	sweepEvery time.Duration // how often a queue is looked at for expired mail: sweep.Config.Every
}

// History is how long and how much is kept of messages that have ended, in Redis: who they were for, masked, what became of
// them, when, and what the relay said.
type History struct {
	// For is how long: 72 hours if zero, not at all if negative.
	For time.Duration

	// Size is how many bytes all records may take in Redis, about: 100,000,000 if zero. The oldest go first. A million
	// messages take about 160 MB.
	Size int64
}

func (h History) config() history.Config {
	if h.For < 0 {
		return history.Config{}
	}
	c := history.Config{For: h.For, Size: h.Size}
	if c.For == 0 {
		c.For = 72 * time.Hour
	}
	if c.Size == 0 {
		c.Size = 100_000_000
	}
	return c
}

// EventLog says whether what happens to messages is written, and how much of it Redis keeps until it is read.
type EventLog struct {
	On bool

	// Size is how many bytes all events may take in Redis, about: 50,000,000 if zero. The oldest go first, read or not. A message of one recipient
	// has two, of about 170 bytes each, and more if it is delayed.
	Size int64
}

func (l EventLog) config() events.Config {
	if !l.On {
		return events.Config{}
	}
	return events.Config{Size: cmp.Or(l.Size, 50_000_000)}
}

func (c WorkerConfig) withDefaults() WorkerConfig {
	defaults := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if len(c.Queues) == 0 {
		c.Queues = map[string]int{"default": 1}
	}
	if c.Connections == 0 {
		c.Connections = 4
	}
	if c.BatchSize == 0 {
		c.BatchSize = 100
	}
	if c.Memory == 0 {
		c.Memory = weight.DefaultMemory
	}
	if c.Shards == 1 {
		c.Shards = 0 // in one piece
	}
	defaults(&c.RetryMin, deliverypolicy.DefaultRetryMin)
	defaults(&c.RetryMax, deliverypolicy.DefaultRetryMax)
	defaults(&c.MaxAge, deliverypolicy.DefaultMaxAge)
	defaults(&c.BatchTimeout, 2*time.Minute)
	defaults(&c.ReplyTimeout, 10*time.Minute)
	defaults(&c.TaskTimeout, 30*time.Minute)
	c.TaskTimeout = max(c.TaskTimeout, c.ReplyTimeout+2*c.BatchTimeout)
	defaults(&c.ShutdownTimeout, 150*time.Second)
	defaults(&c.turnPatience, time.Second)
	defaults(&c.openPatience, 2*time.Second)
	defaults(&c.stillPatience, 10*time.Second)
	defaults(&c.restAfter, 30*time.Second)
	if c.Logger == nil {
		c.Logger = new(zerolog.Nop())
	}
	return c
}

// check refuses names that no program can put mail under, and rates that are none.
func (c WorkerConfig) check() error {
	for _, name := range slices.Sorted(maps.Keys(c.Queues)) {
		if err := mailer.CheckName("queue", name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Mailers)) {
		if err := mailer.CheckName("mailer", name); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Rates)) {
		if err := c.Rates[name].Check(); err != nil {
			return fmt.Errorf("tasks: rates of mailer %q: %w", name, err)
		}
	}
	return c.checkFailover()
}

// checkFailover refuses members that do not exist, that have members of their own, which rules circles out, and weights
// that mean nothing.
func (c WorkerConfig) checkFailover() error {
	for _, name := range slices.Sorted(maps.Keys(c.Failover)) {
		bad := func(member, reason string) error { return &FailoverError{name, member, reason} }
		if _, known := c.Mailers[name]; !known && name != "" {
			return bad("", "it has members and is not among the mailers")
		}
		members := c.Failover[name].Members
		if len(members) == 0 {
			return bad("", "it has no members")
		}
		seen := map[string]bool{}
		for _, m := range members {
			_, known := c.Mailers[m.Mailer]
			_, failover := c.Failover[m.Mailer]
			switch {
			case m.Mailer == name:
				return bad(m.Mailer, "it cannot be a member of itself")
			case m.Mailer == "":
				return bad(handover.DefaultMailer, "a member is a mailer with a name")
			case !known:
				return bad(m.Mailer, "there is no mailer of that name")
			case failover:
				return bad(m.Mailer, "it has members itself")
			case m.Weight < 1:
				return bad(m.Mailer, fmt.Sprintf("its weight is %d, and has to be at least 1", m.Weight))
			case seen[m.Mailer]:
				return bad(m.Mailer, "it is named twice")
			}
			seen[m.Mailer] = true
		}
	}
	return nil
}
