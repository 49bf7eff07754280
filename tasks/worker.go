package tasks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// WorkerConfig configures a Worker. Connect is required; the rest has defaults.
type WorkerConfig struct {
	// Connect returns a new backend of the mailer with that name, "" for the default
	// one. It is called once for each connection.
	Connect func(mailer string) (mailer.Backend, error)

	// Mailers are the named mailers that the worker serves beside the default one, and
	// how many connections each has: Connections if zero.
	Mailers map[string]int

	// Queues are the queues' names and their weights: {"default": 1} if empty. If
	// there are several, each mailer has one more connection, for the one of the highest
	// weight alone, opened when that has mail.
	Queues      map[string]int
	Connections int // to the default mailer's relay: 4 if zero
	BatchSize   int // messages a connection takes at once, at most: 100 if zero

	// Concurrency is how many tasks wait in the worker or are on the wire at once, for each
	// mailer: Connections*BatchSize if zero, but half of that, and at least 400, where it is more than 400.
	Concurrency int

	// Memory is how many octets big messages in hand may take: 256,000,000 if zero, no
	// limit if negative. A message counts with two to five times its content, for what is
	// made of it. Each mailer has an equal part, and of that each connection: one for the queue
	// of the highest weight, the others for the rest. A message that is bigger than its
	// part is sent alone. Messages of up to 64 kB do not count.
	Memory int

	// Shards is how many parts each queue is in, as QueueConfig.Shards says: at least
	// what any producer has. What is still in the queue in one piece is taken too.
	Shards int

	RetryMin time.Duration // shortest pause before another try: 5 s if zero
	RetryMax time.Duration // longest one: 1 h if zero
	MaxAge   time.Duration // after this a message that could not be sent is a dead letter: 120 h if zero

	// BatchTimeout bounds one batch: 2 min if zero. It is longer than one SMTP
	// command may take.
	BatchTimeout time.Duration

	// ReplyTimeout is how long a backend may go on waiting for the reply to a message
	// that it has sent whole, when its batch's time is up: 10 min if zero. Together
	// with two BatchTimeouts it is shorter than the TaskTimeout of the queue.
	ReplyTimeout time.Duration

	// ShutdownTimeout is how long what is on the wire may take to end after Run's
	// context has: 2 min 30 s if zero. Run returns a few seconds after that at the latest.
	ShutdownTimeout time.Duration

	Logger        *zerolog.Logger // no logs if nil
	ShowAddresses bool            // log mail addresses in full, instead of their first letter and their domain

	Observers []Observer
	Tracer    Tracer // no traces if nil
}

// givingBack is how long asynq waits at shutdown before it puts unfinished tasks back:
// time for the finished ones to be recorded first.
const givingBack = time.Second

// How often, on average, an idle asynq server looks for new tasks: a message waits half
// of it, at most one and a half. Each look costs Redis one script for each queue. The
// express server asks Redis as often as that only while its lane is busy, for then
// other mail is in the way; otherwise it does so every checkInterval.
const (
	checkInterval        = asynqbatch.CheckInterval
	massCheckInterval    = 200 * time.Millisecond
	expressCheckInterval = 2 * time.Millisecond
)

// Worker takes messages from the queue and delivers them.
type Worker struct {
	cfg    WorkerConfig
	redis  redis.UniversalClient
	client *producer
	policy policy
	asynq  *asynqbatch.Client
	ledger *ledger
	blobs  contents
	lanes  map[string]*lane // by mailer
	inHand inHand
	alone  *isolation
	log    zerolog.Logger
}

// NewWorker returns a worker on the given Redis, which it does not close.
func NewWorker(client redis.UniversalClient, cfg WorkerConfig) (*Worker, error) {
	if cfg.Connect == nil {
		return nil, errors.New("tasks: WorkerConfig.Connect is required")
	}
	cfg = cfg.withDefaults()
	w := &Worker{
		cfg:    cfg,
		redis:  client,
		client: newProducer(client),
		blobs:  newContents(client, cfg.cacheSize(), *cfg.Logger),
		policy: policy{retryMin: cfg.RetryMin, retryMax: cfg.RetryMax, maxAge: cfg.MaxAge},
		lanes:  map[string]*lane{},
		alone:  newIsolation(client, *cfg.Logger),
		log:    *cfg.Logger,
	}
	w.asynq = asynqbatch.New(client, asynqbatch.Config{LostField: wire.FieldLost, Fetched: w.alone.taken, Logger: *cfg.Logger})
	w.ledger = newLedger(client, w.asynq, *cfg.Logger)
	w.lanes[""] = newLane("", cfg.Connections, cfg)
	for name, connections := range cfg.Mailers {
		w.lanes[name] = newLane(name, cmp.Or(connections, cfg.Connections), cfg)
	}
	for _, l := range w.lanes {
		if err := l.addSenders(w); err != nil {
			return nil, fmt.Errorf("tasks: backend: %w", err)
		}
	}
	return w, nil
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
		c.Memory = defaultMemory
	}
	if c.Shards == 1 {
		c.Shards = 0 // in one piece
	}
	defaults(&c.RetryMin, 5*time.Second)
	defaults(&c.RetryMax, time.Hour)
	defaults(&c.MaxAge, 120*time.Hour)
	defaults(&c.BatchTimeout, 2*time.Minute)
	defaults(&c.ReplyTimeout, 10*time.Minute)
	defaults(&c.ShutdownTimeout, 150*time.Second)
	if c.Logger == nil {
		c.Logger = new(zerolog.Nop())
	}
	return c
}

// Held returns why mail is not being sent, by the name of the mailer whose relay takes
// none. It is empty if all is well.
func (w *Worker) Held() map[string]error {
	held := map[string]error{}
	for name, l := range w.lanes {
		if err := l.breaker.held(); err != nil {
			held[name] = err
		}
	}
	return held
}

// Run works until ctx ends and then stops in an order that neither loses nor doubles a
// message: take nothing new, end what is on the wire, give the rest back.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.redis.Ping(ctx).Err(); ctx.Err() != nil {
		return nil
	} else if err != nil {
		return redisconn.Unavailable(err)
	}
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	var senders, ledger sync.WaitGroup
	ledger.Go(func() { w.ledger.run(context.WithoutCancel(ctx)) })
	keeping, letGo := context.WithCancel(context.WithoutCancel(ctx))
	defer letGo()
	var keeper sync.WaitGroup
	keeper.Go(func() { w.blobs.store.Run(keeping) })
	for _, l := range w.lanes {
		if err := l.start(ctx, work, w, &senders); err != nil {
			return fmt.Errorf("tasks: %w", err)
		}
	}
	w.log.Info().Int("connections", w.cfg.Connections).Int("batch_size", w.cfg.BatchSize).Msg("worker started")

	<-ctx.Done()
	w.log.Info().Msg("worker stopping: takes nothing new, ends what is on the wire")
	timer := time.AfterFunc(w.cfg.ShutdownTimeout, abort)
	defer timer.Stop()
	w.alone.stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.eachServer((*asynqbatch.Server).Stop)
		senders.Wait()
		for _, l := range w.lanes {
			l.breaker.stop()
		}
		w.ledger.end()
		ledger.Wait()
		w.eachServer((*asynqbatch.Server).Shutdown) // gives back what no sender took
		letGo()
		keeper.Wait()
	}()
	select {
	case <-stopped:
		w.log.Info().Msg("worker stopped")
		return nil
	case <-time.After(w.cfg.ShutdownTimeout + 5*givingBack):
		// Redis does not answer, or the relay is silent about a message that it has.
		// Waiting longer for either helps nobody.
		return errNotStopped
	}
}

// senderCount counts the worker's senders.
func (w *Worker) senderCount() int {
	n := 0
	for _, l := range w.lanes {
		n += len(l.senders)
	}
	return n
}

// eachServer does something with all asynq servers at the same time.
func (w *Worker) eachServer(do func(*asynqbatch.Server)) {
	var all sync.WaitGroup
	for _, l := range w.lanes {
		for _, server := range l.servers {
			all.Go(func() { do(server) })
		}
	}
	all.Wait()
}

// serverConfig is how the worker uses asynq.
func (w *Worker) serverConfig(queues map[string]int, concurrency int) asynq.Config {
	return asynq.Config{
		Concurrency:              concurrency,
		Queues:                   queues,
		TaskCheckInterval:        checkInterval,
		DelayedTaskCheckInterval: time.Second,
		RetryDelayFunc:           w.policy.retryDelay,
		IsFailure:                costsTry,
		ShutdownTimeout:          givingBack,
		LogLevel:                 asynq.WarnLevel,
	}
}

var errNotStopped = errors.New("tasks: stopped with messages unfinished: another worker takes them over within " +
	"two minutes, and may send what the relay has not answered a second time")
