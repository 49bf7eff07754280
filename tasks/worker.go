package tasks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/deliverypolicy"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/handover"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/sweep"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/isolation"
	"github.com/mailpouch/mailpouch/tasks/internal/producer"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// Worker takes messages from the queue and delivers them.
type Worker struct {
	cfg         WorkerConfig
	redis       redis.UniversalClient
	client      *producer.Producer
	codec       wire.Codec
	policy      policy
	asynq       *asynqbatch.Client
	ledger      *ledger
	history     *history.Keeper
	recorder    recorder
	blobs       producer.Contents
	dispatchers map[string]*dispatcher // by mailer
	inFlight    isolation.InFlight
	rounds      *rounds
	strangers   *strangers
	isolation   *isolation.Isolation
	watch       *watcher
	routed      chan struct{} // gets a token when members of a mailer have changed
	reporter
}

// NewWorker returns a worker on the given Redis, which it does not close. A queue or a mailer
// whose name is not allowed is a NameError.
func NewWorker(client redis.UniversalClient, cfg WorkerConfig) (*Worker, error) {
	if cfg.Connect == nil {
		return nil, errors.New("tasks: WorkerConfig.Connect is required")
	}
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	did := new(counter)
	cfg.Observers = append(slices.Clone(cfg.Observers), Observer{Outcome: did.outcome})
	w := &Worker{
		cfg:         cfg,
		redis:       client,
		client:      producer.New(client),
		blobs:       producer.NewContents(client, weight.CacheSize(cfg.Memory), *cfg.Logger),
		policy:      policy{deliverypolicy.Policy{RetryMin: cfg.RetryMin, RetryMax: cfg.RetryMax, MaxAge: cfg.MaxAge}},
		dispatchers: map[string]*dispatcher{},
		isolation:   isolation.New(client, *cfg.Logger),
		rounds:      newRounds(*cfg.Logger),
		routed:      make(chan struct{}, 1),
		reporter:    reporter{redact.View{Addresses: cfg.ShowAddresses}, *cfg.Logger, cfg.Observers},
	}
	w.watch = newWatcher(client, cfg, w.dispatchers, did, func(queue string) { w.asynq.Wake(queue) })
	kept := cfg.History.config()
	w.history = history.NewKeeper(client, kept, *cfg.Logger)
	w.client.Moves, w.client.Events = true, cfg.Events.config()
	if w.recorder.events = w.client.Events; kept.On() {
		w.recorder.keeper = w.history
	}
	w.asynq = asynqbatch.New(client, asynqbatch.Config{
		LostField: wire.FieldLost, OwnerField: wire.FieldOwner, TouchedFields: touchedFields(), Steps: steps(), Fetched: w.isolation.Fetched, Logger: *cfg.Logger, Clock: cfg.clock,
		History: kept, Events: w.recorder.events, Archived: archivedEvents,
		Asleep: w.watch.queues.Asleep, Took: w.watch.queues.Took, Waiter: w.watch.queues.Waiter,
	})
	w.isolation.Owner = w.asynq.Owner
	w.ledger = newLedger(client, w.asynq, *cfg.Logger)
	w.recorder.records, w.recorder.note = w.asynq, w.asynq.Note
	w.ledger.history = w.recorder
	w.strangers = newStrangers(w.asynq, *cfg.Logger, cfg.Observers)
	w.dispatchers[""] = newDispatcher("", cfg.Connections, cfg, w.isolation, w.giveBack)
	for name, connections := range cfg.Mailers {
		w.dispatchers[name] = newDispatcher(name, cmp.Or(connections, cfg.Connections), cfg, w.isolation, w.giveBack)
	}
	for name, f := range cfg.Failover {
		members := make([]*dispatcher, len(f.Members))
		for i, m := range f.Members {
			members[i] = w.dispatchers[m.Mailer]
		}
		w.dispatchers[name].joins(members, f, w.routed)
	}
	senders := 0
	for _, d := range w.dispatchers {
		if d.route != nil {
			d.withoutSenders(client, w.policy)
			continue
		}
		w.observers.grown(d.mailer, d.connections, d.most)
		numbers, err := d.addSenders(client, w.policy, w.ledger, senders)
		if err != nil {
			return nil, fmt.Errorf("tasks: backend: %w", err)
		}
		senders += numbers
	}
	return w, nil
}

// giveBack gives tasks back to the head of their queues. If Redis does not answer asynq gives back what is still there, when
// the handlers return, or another worker takes it over.
func (w *Worker) giveBack(keys []string) {
	ctx, cancel := context.WithTimeout(context.Background(), backTimeout)
	defer cancel()
	if err := w.asynq.GiveBack(ctx, keys); err != nil {
		w.log.Warn().Err(err).Msg("messages could not be given back in their order: Redis does not answer")
	}
}

// backTimeout is how long giving tasks back may take.
const backTimeout = 10 * time.Second

// ID names the worker among those that live, as what it writes to Redis of itself does.
func (w *Worker) ID() string { return w.watch.self.ID }

// Held returns why mail is not being sent, by the name of the mailer whose relay takes
// none. It is empty if all is well. A mailer that has had no mail of its own, and is a member of others, is not in it while
// these send with other members.
func (w *Worker) Held() map[string]error {
	held := map[string]error{}
	for name, d := range w.dispatchers {
		if err := d.held(); err != nil && !w.spared(d) {
			held[name] = err
		}
	}
	return held
}

// spared reports whether nothing waits for a mailer though its relay takes no mail: what others would send with it they send
// with other members.
func (w *Worker) spared(d *dispatcher) bool {
	member := false
	for _, of := range w.dispatchers {
		if slices.Contains(of.members, d) {
			if member = true; of.held() != nil {
				return false
			}
		}
	}
	return member && !d.servers.Awake()
}

// inRedis is what the worker knows of mail that waits in Redis.
func (w *Worker) inRedis() inRedis {
	m := inRedis{queues: w.cfg.Queues, held: map[string]func() error{}, policy: w.policy, events: w.recorder.events}
	for name, d := range w.dispatchers {
		m.held[name] = d.held
	}
	return m
}

// Run works until ctx ends and then stops in an order that neither loses nor doubles a
// message: take nothing new, end what is on the wire, give all others back.
func (w *Worker) Run(ctx context.Context) error {
	if err := redisconn.Answers(ctx, w.redis); ctx.Err() != nil {
		return nil
	} else if err != nil {
		return err
	}
	w.history.Look(ctx)
	work, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	var senders, ledger sync.WaitGroup
	ledger.Go(func() { w.ledger.run(work) })
	keeping, letGo := context.WithCancel(context.WithoutCancel(ctx))
	defer letGo()
	var keeper sync.WaitGroup
	keeper.Go(func() { w.blobs.Run(keeping) })
	keeper.Go(func() { w.history.Run(ctx) })
	if w.recorder.events.On() {
		keeper.Go(func() { events.NewKeeper(w.redis, w.recorder.events, w.log).Run(ctx) })
	}
	keeper.Go(func() { watchSkew(keeping, w.redis, w.cfg.Observers, *w.cfg.Logger) })
	keeper.Go(func() {
		newSweeper(w.redis, w.inRedis(), w.cfg.RetryMax, w.cfg.sweepEvery, w.log, w.observers).Run(ctx)
	})
	for _, d := range w.dispatchers {
		d.start(ctx, work, w.asynq, w, &senders)
	}
	var watching sync.WaitGroup
	watching.Go(func() { w.watch.run(ctx) })
	watching.Go(func() { w.watchRoutes(ctx) })
	watching.Go(func() { newPausing(w.redis, *w.cfg.Logger, w.dispatchers).run(ctx) })
	w.log.Info().Int("connections", w.cfg.Connections).Int("connections_max", w.dispatchers[""].most).Int("batch_size", w.cfg.BatchSize).Msg("worker started")

	<-ctx.Done()
	inHand := w.inFlight.Len()
	w.log.Info().Msg("worker stopping: takes nothing new, ends what is on the wire")
	timer := time.AfterFunc(w.cfg.ShutdownTimeout, abort)
	defer timer.Stop()
	w.isolation.Stop()
	away, release := lookForRedis(w.redis, func() bool { return !w.wires() && !w.ledger.unwritten.any() })
	defer release()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.each(func(d *dispatcher) { d.servers.End() })
		senders.Wait()
		for _, d := range w.dispatchers {
			d.stop()
		}
		w.ledger.end()
		ledger.Wait()
		w.each(func(d *dispatcher) { d.servers.Shutdown() }) // gives back what no sender took
		letGo()
		keeper.Wait()
		watching.Wait()
	}()
	select {
	case <-stopped:
		if away.isSilent() {
			stoppedWithout(w.log, inHand)
		} else {
			w.log.Info().Msg("worker stopped")
		}
		return w.ledger.unwritten.say(w.log)
	case <-away.gone:
		w.cutOff()
		stoppedWithout(w.log, inHand)
		return w.ledger.unwritten.say(w.log)
	case <-time.After(w.cfg.ShutdownTimeout + 5*givingBack):
		// Redis does not answer, or the relay is silent about a message that it has.
		// Waiting longer for either helps nobody.
		w.cutOff()
		if err := w.ledger.unwritten.say(w.log); err != nil {
			return err
		}
		return errNotStopped
	}
}

// watchRoutes finds out how the members of mailers are, and tells what has changed, until ctx ends.
func (w *Worker) watchRoutes(ctx context.Context) {
	told := map[*dispatcher]*news{}
	for name, d := range w.dispatchers {
		if d.route != nil {
			log := w.log.With().Str("mailer", cmp.Or(name, handover.DefaultMailer)).Logger()
			told[d] = &news{log: log, view: w.view, observers: w.observers}
		}
	}
	if len(told) == 0 {
		return
	}
	tick := time.NewTicker(routesEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		for d, n := range told {
			d.look(time.Now())
			n.tell(d.route.state(), d.held())
		}
		select {
		case <-ctx.Done():
		case <-w.routed:
		case <-tick.C:
		}
	}
}

// routesEvery is how often it is looked whether members get on.
const routesEvery = 500 * time.Millisecond

// each does something with all dispatchers at the same time.
func (w *Worker) each(do func(*dispatcher)) {
	var all sync.WaitGroup
	for _, d := range w.dispatchers {
		all.Go(func() { do(d) })
	}
	all.Wait()
}

// wires reports whether a sender waits for its relay.
func (w *Worker) wires() bool {
	for _, d := range w.dispatchers {
		if d.busy.wires.Load() > 0 {
			return true
		}
	}
	return false
}

// cutOff ends asynq's servers though Redis does not answer them. What waits for Redis beside them ends when the client
// is closed.
func (w *Worker) cutOff() {
	w.asynq.CutOff()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.each(func(d *dispatcher) { d.servers.Shutdown() })
	}()
	select {
	case <-ended:
	case <-time.After(2 * givingBack): // it is still about to subscribe to cancellations, and cannot be told
	}
}

// inRedis is what a worker knows of mail that waits in Redis, and that it does not have in hand.
type inRedis struct {
	queues map[string]int
	held   map[string]func() error // by mailer: why its relay takes no mail
	policy policy
	events events.Config
}

// newSweeper returns what makes dead letters of mail that waits in Redis until its time is up. While the relay is away
// no worker may have that in hand.
func newSweeper(client redis.UniversalClient, m inRedis, horizon, every time.Duration, log zerolog.Logger, told observers) *sweep.Sweeper {
	return sweep.New(client, sweep.Config{
		Serves: m.serves, Expired: m.expired, Horizon: horizon, Every: every, Logger: log, Events: m.events,
		Buried: func(ctx context.Context, queue string, ids []string) { recordBuried(ctx, client, queue, ids) },
		Swept: func(queue string, why sweep.Why, tasks int) {
			name := wire.ParseQueueName(queue)
			told.swept(Swept{Queue: name.Queue, Mailer: name.Mailer, Why: string(why), Tasks: tasks})
		},
	})
}

// serves reports whether the worker takes from a queue of asynq's, or would if that had fewer parts.
func (m inRedis) serves(queue string) bool {
	name := wire.ParseQueueName(queue)
	return m.held[name.Mailer] != nil && m.queues[name.Queue] > 0
}

// expired returns why a message may not be sent any more, and what it has waited for.
func (m inRedis) expired(_ string, meta wire.Meta, now time.Time) error {
	if meta.Refused != "" { // it is to be a dead letter, as soon as a worker takes it
		return errors.New(meta.Refused)
	}
	a := attempt{Now: now, Due: meta.DueAt}
	if meta.Deadline != nil {
		a.Deadline = *meta.Deadline
	}
	reason := m.policy.Expired(a, 0)
	if held := m.held[meta.Using]; reason != nil && held != nil {
		if why := held(); why != nil {
			return fmt.Errorf("%w: %w", reason, why)
		}
	}
	return reason
}

// Leases and due times go by the clock of Redis alone, so a wrong clock here doubles and loses nothing. But retries,
// deadlines and EMAIL_MAX_AGE are reckoned from it, and so is the time of every log line.

const (
	tolerable = 3 * time.Second // that clocks may differ without a word
	skewEvery = time.Minute
)

// watchSkew measures how far this machine's clock is from that of Redis, now and every minute until ctx ends. It warns when the
// two part, and says when they agree again.
func watchSkew(ctx context.Context, client redis.UniversalClient, o observers, log zerolog.Logger) {
	apart, forbidden := false, false
	for {
		ahead, err := skew(ctx, client, time.Now)
		if err != nil && strings.HasPrefix(err.Error(), "NOPERM") && !forbidden {
			forbidden = true
			log.Error().Err(err).Msg("no mail is sent: the user of Redis needs the right to TIME, by which leases go (ACL: +time)")
		}
		if err == nil {
			o.skew(ahead)
			switch was := apart; {
			case ahead.Abs() > tolerable && !was:
				apart = true
				log.Warn().Float64("ahead_seconds", ahead.Seconds()).
					Msg("this machine's clock and that of Redis differ: mail is due by Redis's clock, deadlines by this one; set both by NTP")
			case ahead.Abs() <= tolerable && was:
				apart = false
				log.Info().Msg("this machine's clock and that of Redis agree again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(skewEvery):
		}
	}
}

// skew is how far now is ahead of the clock of Redis. What Redis says is half a round trip old. Of a few answers the
// fastest tells most.
func skew(ctx context.Context, client redis.UniversalClient, now func() time.Time) (ahead time.Duration, err error) {
	const asks = 3
	best := time.Duration(-1)
	for range asks {
		asked := now()
		theirs, err := client.Time(ctx).Result()
		if err != nil {
			return 0, err
		}
		if took := now().Sub(asked); best < 0 || took < best {
			best, ahead = took, asked.Round(0).Add(took/2).Sub(theirs)
		}
	}
	return ahead, nil
}

// recordBuried writes the records of tasks of which a sweep has made dead letters.
func recordBuried(ctx context.Context, client redis.UniversalClient, queue string, ids []string) {
	place := wire.ParseQueueName(queue)
	for _, id := range ids {
		if records, err := find.Records(ctx, client, id, place); err == nil && len(records) > 0 {
			r := records[0]
			history.Ended(ctx, client, queue, id, r.Type, r.Payload, history.Dead, r.Reason())
		}
	}
}
