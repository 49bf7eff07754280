package tasks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

// WorkerConfig configures a Worker. Connect is required; the rest has defaults.
type WorkerConfig struct {
	// Connect returns a new backend. It is called once for each sender.
	Connect func() (mailer.Backend, error)

	Queues      map[string]int // queue names and their weights: {"default": 1} if empty
	Connections int            // senders, each with one open connection: 4 if zero
	BatchSize   int            // messages a sender takes at once, at most: 100 if zero
	Concurrency int            // tasks held at once: Connections*BatchSize if zero

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

	Logger  *zerolog.Logger // no logs if nil
	OnBatch func(Batch)     // called after each batch, from its sender's goroutine
}

// Batch is what one sender sent at once.
type Batch struct {
	Size     int           // messages
	Accepted int           // of which the relay took this many
	Duration time.Duration // from the first octet to the last reply
}

// givingBack is how long asynq waits at shutdown before it puts unfinished tasks back:
// time for the finished ones to be recorded first.
const givingBack = time.Second

// Worker takes messages from the queue and delivers them.
type Worker struct {
	cfg     WorkerConfig
	redis   redis.UniversalClient
	client  *asynq.Client
	policy  policy
	gate    *gate
	ledger  *ledger
	intake  chan *job // unbuffered: a job is either its handler's or a sender's
	log     zerolog.Logger
	senders []*sender
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
		client: asynq.NewClientFromRedisClient(client),
		policy: policy{retryMin: cfg.RetryMin, retryMax: cfg.RetryMax, maxAge: cfg.MaxAge},
		gate:   newGate(),
		ledger: newLedger(client, *cfg.Logger),
		intake: make(chan *job),
		log:    *cfg.Logger,
	}
	for range cfg.Connections {
		backend, err := cfg.Connect()
		if err != nil {
			return nil, fmt.Errorf("tasks: backend: %w", err)
		}
		w.senders = append(w.senders, &sender{
			backend: backend, intake: w.intake, gate: w.gate, ledger: w.ledger, policy: w.policy, log: w.log,
			batchSize: cfg.BatchSize, batchTimeout: cfg.BatchTimeout, onBatch: cfg.OnBatch,
		})
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
	if c.Concurrency == 0 {
		c.Concurrency = c.Connections * c.BatchSize
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
	if c.OnBatch == nil {
		c.OnBatch = func(Batch) {}
	}
	return c
}

// Held returns why no mail is being sent, nil if it is.
func (w *Worker) Held() error { return w.gate.held() }

// Run works until ctx ends and then stops in an order that neither loses nor doubles a
// message: take nothing new, end what is on the wire, give the rest back.
func (w *Worker) Run(ctx context.Context) error {
	if err := w.redis.Ping(ctx).Err(); err != nil {
		return unavailable(err)
	}
	server := asynq.NewServerFromRedisClient(w.redis, asynq.Config{
		Concurrency:              w.cfg.Concurrency,
		Queues:                   w.cfg.Queues,
		TaskCheckInterval:        100 * time.Millisecond,
		DelayedTaskCheckInterval: time.Second,
		RetryDelayFunc:           w.policy.retryDelay,
		IsFailure:                costsTry,
		ShutdownTimeout:          givingBack,
		Logger:                   asynqLogger{w.log},
		LogLevel:                 asynq.WarnLevel,
	})
	if err := server.Start(w); err != nil {
		return fmt.Errorf("tasks: %w", err)
	}
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	var senders, ledger sync.WaitGroup
	for _, s := range w.senders {
		senders.Go(func() { s.run(ctx, work) })
	}
	ledger.Go(func() { w.ledger.run(context.WithoutCancel(ctx)) })
	w.log.Info().Int("connections", w.cfg.Connections).Int("batch_size", w.cfg.BatchSize).Msg("worker started")

	<-ctx.Done()
	w.log.Info().Msg("worker stopping: takes nothing new, ends what is on the wire")
	timer := time.AfterFunc(w.cfg.ShutdownTimeout, abort)
	defer timer.Stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		server.Stop()
		senders.Wait()
		w.gate.stop()
		w.ledger.end()
		ledger.Wait()
		server.Shutdown() // gives back what no sender took
	}()
	select {
	case <-stopped:
		w.log.Info().Msg("worker stopped")
		return nil
	case <-time.After(w.cfg.ShutdownTimeout + 2*givingBack):
		// Redis does not answer, or the relay is silent about a message that it has.
		// Waiting longer for either helps nobody.
		return errNotStopped
	}
}

var errNotStopped = errors.New("tasks: stopped with messages unfinished: another worker takes them over within " +
	"two minutes, and may send what the relay has not answered a second time")

// ProcessTask is asynq's handler: it hands the task's message to a sender and waits
// for its outcome.
func (w *Worker) ProcessTask(ctx context.Context, task *asynq.Task) error {
	t := w.ticket(ctx, task)
	p, err := decodePayload(task.Payload())
	o := outcome{verdict: verdict{action: deadLetter, reason: err}}
	if t.payload = p; p != nil {
		if o, err = w.await(ctx, t); err != nil {
			return err
		}
	}
	if err := w.settle(ctx, t, o); err != nil {
		return err
	}
	w.logOutcome(t, o)
	return o.verdict.taskError()
}

// await offers the message to the senders until one has sent it. It gives up in time
// before asynq takes the task away, unless the message is on the wire: then only its
// outcome counts.
func (w *Worker) await(ctx context.Context, t ticket) (outcome, error) {
	a := t.attempt()
	if t.payload.Refused != "" {
		return outcome{verdict: verdict{action: deadLetter, reason: errors.New(t.payload.Refused)}}, nil
	}
	if reason := w.policy.expired(a, 0); reason != nil {
		return outcome{verdict: verdict{action: deadLetter, reason: reason}}, nil
	}
	inTime, cancel := w.inTime(ctx)
	defer cancel()
	j := newJob(t)
	select {
	case w.intake <- j:
	case <-inTime.Done():
		return outcome{}, errGivenBack
	}
	select {
	case o := <-j.done:
		return o, nil
	case <-inTime.Done():
		if j.giveUp() {
			return outcome{}, errGivenBack
		}
		return <-j.done, nil
	}
}

// inTime ends when a batch that began then could still end before asynq's time for
// the task is up.
func (w *Worker) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline.Add(-w.cfg.BatchTimeout-w.cfg.ReplyTimeout))
}
