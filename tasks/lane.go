package tasks

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"
)

// lane is the way of one mailer's messages through the worker, apart from all others:
// its own asynq queues and servers, its own senders and gate. A relay that is down or
// slow holds up its own mail only.
type lane struct {
	mailer      string         // its name, "" for the default mailer
	queues      map[string]int // asynq's names of its queues, and their weights
	connections int

	// A lane with several queues has two ways in. What is in the queue of the highest
	// weight comes in by express: one connection is there for it alone, and the other
	// senders take their share of it, so no amount of other mail delays it. The
	// channels are unbuffered: a job is either its handler's or a sender's.
	intake  chan *job
	express chan *job // nil if there is one queue

	top     string // the asynq queue of the highest weight
	share   float64
	gate    *gate
	senders []*sender
	servers []*asynq.Server
}

// laneQueue is asynq's name for a queue of a mailer: queues of named mailers carry the
// name in front. Neither has a dot in it.
func laneQueue(mailer, queue string) string {
	if mailer == "" {
		return queue
	}
	return mailer + "." + queue
}

// plainQueue undoes laneQueue.
func plainQueue(queue string) string { return queue[strings.LastIndexByte(queue, '.')+1:] }

func newLane(mailer string, connections int, cfg WorkerConfig) *lane {
	l := &lane{mailer: mailer, connections: connections, queues: map[string]int{}, intake: make(chan *job), gate: newGate()}
	for name, weight := range cfg.Queues {
		l.queues[laneQueue(mailer, name)] = weight
	}
	if len(l.queues) < 2 {
		return l
	}
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(l.queues)) {
		sum += l.queues[name]
		if l.top == "" || l.queues[name] > l.queues[l.top] {
			l.top = name
		}
	}
	l.express = make(chan *job)
	l.share = float64(l.queues[l.top]) / float64(sum)
	return l
}

// way is the channel by which a queue's jobs come in.
func (l *lane) way(queue string) chan *job {
	if l.express != nil && queue == l.top {
		return l.express
	}
	return l.intake
}

// start starts the lane's senders and asynq servers. The servers take tasks from Redis
// one at a time each; one of them is there for the express queue alone, so that its
// tasks never wait until other tasks make room.
func (l *lane) start(stop, work context.Context, w *Worker, senders *sync.WaitGroup) error {
	for _, s := range l.senders {
		senders.Go(func() { s.run(stop, work) })
	}
	configs := []asynq.Config{w.serverConfig(l.queues, cmp.Or(w.cfg.Concurrency, l.connections*w.cfg.BatchSize))}
	if l.express != nil {
		configs = append(configs, w.serverConfig(map[string]int{l.top: 1}, w.cfg.BatchSize))
	}
	for _, c := range configs {
		server := asynq.NewServerFromRedisClient(w.redis, c)
		if err := server.Start(w); err != nil {
			return err
		}
		l.servers = append(l.servers, server)
	}
	return nil
}

// addSenders gives the lane its connections, the express one last.
func (l *lane) addSenders(w *Worker) error {
	log := w.log
	if l.mailer != "" {
		log = w.log.With().Str("mailer", l.mailer).Logger()
	}
	for range l.connections {
		if err := l.addSender(w, log, l.intake, l.express); err != nil {
			return err
		}
	}
	if l.express == nil {
		return nil
	}
	return l.addSender(w, log, nil, l.express)
}

func (l *lane) addSender(w *Worker, log zerolog.Logger, intake, express chan *job) error {
	backend, err := w.cfg.Connect(l.mailer)
	if err != nil {
		return err
	}
	l.senders = append(l.senders, &sender{
		backend: backend, intake: intake, express: express, share: l.share,
		gate: l.gate, ledger: w.ledger, policy: w.policy, log: log,
		batchSize: w.cfg.BatchSize, batchTimeout: w.cfg.BatchTimeout,
		observers: w.cfg.Observers, mailer: l.mailer, number: w.senderCount() + 1,
	})
	return nil
}
