package tasks

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// lane is the way of one mailer's messages through the worker, apart from all others:
// its own asynq queues and servers, its own senders and breaker. A relay that is down or
// slow holds up its own mail only.
type lane struct {
	mailer      string         // its name, "" for the default mailer
	queues      map[string]int // its queues, as producers call them, and their weights
	connections int
	shards      int // each queue is in so many parts; 0: in one piece

	// A lane with several queues has two ways in. What is in the queue of the highest
	// weight comes in by express: one connection is there for it alone, and the other
	// senders take their share of it, so no amount of other mail delays it. Mass mail
	// never comes in by express. The channels are unbuffered: jobs are either their
	// handler's or a sender's.
	intake  chan []*job
	express chan []*job // nil if there is one queue

	memory        *budget // of what comes in by intake
	expressMemory *budget // and by express

	top     string // the queue of the highest weight
	share   float64
	breaker *breaker
	busy    busy
	senders []*sender
	servers []*asynqbatch.Server
}

func newLane(mailer string, connections int, cfg WorkerConfig) *lane {
	l := &lane{
		mailer: mailer, connections: connections, queues: cfg.Queues, shards: cfg.Shards,
		intake: make(chan []*job), breaker: newBreaker(),
	}
	l.memory, l.expressMemory = cfg.newBudgets(connections, len(l.queues) > 1)
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
	l.express = make(chan []*job)
	l.share = float64(l.queues[l.top]) / float64(sum)
	return l
}

// way is the channel by which a queue's jobs come in.
func (l *lane) way(queue wire.QueueName) chan []*job {
	if l.isExpress(queue) {
		return l.express
	}
	return l.intake
}

func (l *lane) isExpress(queue wire.QueueName) bool {
	return l.express != nil && queue.Queue == l.top && !queue.Bulk
}

// start starts the lane's senders and asynq servers.
func (l *lane) start(stop, work context.Context, w *Worker, senders *sync.WaitGroup) error {
	for _, s := range l.senders {
		senders.Go(func() { s.run(stop, work) })
	}
	for _, c := range l.serverConfigs(w) {
		s := w.asynq.NewServer(c)
		if err := s.Start(w); err != nil {
			return err
		}
		l.servers = append(l.servers, s)
	}
	return nil
}

// serverConfigs are the lane's asynq servers. Each waits for Redis when it takes tasks, so each
// shard has one: another node may answer meanwhile. Another one is there for the express
// queue alone, so that its tasks never wait until other tasks make room, and one for mass
// mail: asynq writes the payload of every active task to Redis every few seconds, so of
// these big ones only so many are active as keep the senders busy. Each is spread over all.
func (l *lane) serverConfigs(w *Worker) []asynqbatch.ServerConfig {
	concurrency := l.inHand(w.cfg)
	parts := max(l.shards, 1)
	whole := l.names(0, false) // a queue that is in parts now may have been in one piece
	var configs []asynqbatch.ServerConfig
	for shard := range parts {
		queues := whole
		if l.shards > 0 {
			queues = l.names(shard+1, false)
		}
		if shard == 0 {
			maps.Copy(queues, whole)
		}
		configs = append(configs, asynqbatch.ServerConfig{Config: w.serverConfig(queues, max(concurrency/parts, 1))})
	}
	express, mass := map[string]int{}, l.names(0, true)
	for shard := range l.shards + 1 {
		express[wire.QueueName{Mailer: l.mailer, Queue: l.top, Shard: shard}.String()] = 1
		maps.Copy(mass, l.names(shard, true))
	}
	if l.express != nil {
		config := w.serverConfig(express, w.cfg.BatchSize)
		config.TaskCheckInterval = expressCheckInterval
		configs = append(configs, asynqbatch.ServerConfig{Config: config, Eager: l.busy.lately})
	}
	config := w.serverConfig(mass, massInHand+l.connections/4)
	config.TaskCheckInterval = massCheckInterval
	return append(configs, asynqbatch.ServerConfig{Config: config})
}

// massInHand is how many mass tasks a lane has in hand, and one more for each four connections.
const massInHand = 8

// inHand is how many tasks the lane has in hand: a batch for each connection, or half of that
// where there are many connections, for those do not all begin a batch at the same time.
func (l *lane) inHand(c WorkerConfig) int {
	const few = 400
	full := l.connections * c.BatchSize
	return cmp.Or(c.Concurrency, min(full, max(full/2, few)))
}

// names are asynq's names of one part of the lane's queues, and their weights.
func (l *lane) names(shard int, mass bool) map[string]int {
	names := map[string]int{}
	for queue, weight := range l.queues {
		names[wire.QueueName{Mailer: l.mailer, Queue: queue, Shard: shard, Bulk: mass}.String()] = weight
	}
	return names
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

func (l *lane) addSender(w *Worker, log zerolog.Logger, intake, express chan []*job) error {
	backend, err := w.cfg.Connect(l.mailer)
	if err != nil {
		return err
	}
	l.senders = append(l.senders, &sender{
		backend: backend, intake: intake, express: express, share: l.share,
		breaker: l.breaker, busy: &l.busy, ledger: w.ledger, policy: w.policy, log: log, view: w.view(),
		batchSize: w.cfg.BatchSize, batchTimeout: w.cfg.BatchTimeout,
		observers: w.cfg.Observers, tracer: w.cfg.Tracer, mailer: l.mailer, number: w.senderCount() + 1,
	})
	return nil
}
