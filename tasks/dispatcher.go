package tasks

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/asynqbatch"
	"github.com/mailpouch/mailpouch/internal/ratelimit"
	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks/internal/isolation"
	"github.com/mailpouch/mailpouch/tasks/internal/weight"
)

// givingBack is how long asynq waits at shutdown before it puts unfinished tasks back:
// time for the finished ones to be recorded first.
const givingBack = time.Second

// How often, on average, an idle asynq server looks for new tasks. A hint wakes it at once; without one a message waits half
// of this, at most one and a half. Each look costs Redis one script for each queue. The
// priority server asks Redis as often as that only while its mailer is busy, for then
// other mail is in the way; otherwise it does so every checkInterval.
const (
	checkInterval         = asynqbatch.CheckInterval
	bulkCheckInterval     = 200 * time.Millisecond
	priorityCheckInterval = 2 * time.Millisecond
)

// dispatcher brings one mailer's messages from its queues to its relay, apart from all others': it has its own
// asynq servers, its own senders and breaker. A relay that is down or slow holds up its own mail only.
//
//	asynq servers, one for each shard   -> handlers -> normal   -> senders
//	asynq server for bulk mail          -> handlers -> normal   -> senders
//	asynq server for the top queue      -> handlers -> priority -> its own sender, and a share of the others
type dispatcher struct {
	cfg         WorkerConfig
	mailer      string // its name, "" for the default mailer
	connections int    // at first
	most        int    // that they may become

	// With several queues there are two channels. What is in the queue of the highest
	// weight comes by priority: one connection is there for it alone, and the other
	// senders take their share of it, so no amount of other mail delays it. Bulk mail
	// never comes by priority. The channels are unbuffered: a delivery is either its
	// handler's or a sender's.
	normal   chan []*delivery
	priority chan []*delivery // nil if there is one queue

	memory         *weight.Budget // of what comes by normal
	priorityMemory *weight.Budget // and by priority

	// A mailer with members has no senders: its messages go to theirs.
	members []*dispatcher
	route   *route       // nil if there are none
	guests  atomic.Int32 // messages of other mailers, of which this one is a member

	top     string // the queue of the highest weight
	share   float64
	policy  policy
	ledger  *ledger
	log     zerolog.Logger
	before  int      // how many numbers of senders are others'
	breaker *breaker // of the senders
	holder  holder   // it, or the route
	rates   *rates
	leases  *leases // nil if there is no limit of connections
	alone   *isolation.Isolation
	handed  *handed
	pool    *connections
	making  sync.Mutex // held while backends are made for senders
	limits  *sessions
	busy    busy
	senders []*sender    // those that were added since they run are grow's
	begun   atomic.Bool  // the senders run
	run     func()       // makes them run, once
	shards  atomic.Int32 // parts of its queues: the configured ones, or more that were found
	servers *asynqbatch.OnDemand
}

// holder is what holds messages back: the breaker of a relay, or the route over several.
type holder interface {
	holds() bool               // what waits is to wait in Redis
	holdsNow() <-chan struct{} // closed while that is so
	asking() bool              // one message is to be fetched, to probe with
	held() error               // why no mail goes through
}

func newDispatcher(mailer string, connections int, cfg WorkerConfig, alone *isolation.Isolation, giveBack func(keys []string)) *dispatcher {
	d := &dispatcher{cfg: cfg, mailer: mailer, connections: connections, most: max(connections, cfg.ConnectionsMax[mailer]), normal: make(chan []*delivery), breaker: newBreaker(), alone: alone}
	d.handed, d.holder = newHanded(d.unbegun, giveBack), d.breaker
	d.memory, d.priorityMemory = weight.NewBudgets(cfg.Memory, 1+len(cfg.Mailers), connections, len(cfg.Queues) > 1)
	d.shards.Store(int32(cfg.Shards)) //nolint:gosec // there are few
	if len(d.cfg.Queues) < 2 {
		return d
	}
	sum := 0
	for _, name := range slices.Sorted(maps.Keys(d.cfg.Queues)) {
		sum += d.cfg.Queues[name]
		if d.top == "" || d.cfg.Queues[name] > d.cfg.Queues[d.top] {
			d.top = name
		}
	}
	d.priority = make(chan []*delivery)
	d.share = float64(d.cfg.Queues[d.top]) / float64(sum)
	return d
}

// channel is where the deliveries of a queue go.
func (d *dispatcher) channel(queue wire.QueueName) chan []*delivery {
	if d.isPriority(queue) {
		return d.priority
	}
	return d.normal
}

func (d *dispatcher) isPriority(queue wire.QueueName) bool {
	return d.priority != nil && queue.Queue == d.top && !queue.Bulk
}

// serverConfigs are those of the asynq servers. Each waits for Redis when it takes tasks, so each
// shard has one: another node may answer meanwhile. Another one is there for the priority
// queue alone, so that its tasks never wait until other tasks make room, and one for bulk
// mail: asynq writes the payload of every active task to Redis every few seconds, so of
// these big ones only so many are active as keep the senders busy. Each is spread over all.
func (d *dispatcher) serverConfigs() []asynqbatch.ServerConfig {
	concurrency := d.concurrency(d.most)
	shards := int(d.shards.Load())
	parts := max(shards, 1)
	whole := d.names(0, false) // a queue that is in parts now may have been in one piece
	var configs []asynqbatch.ServerConfig
	for shard := range parts {
		queues := whole
		if shards > 0 {
			queues = d.names(shard+1, false)
		}
		if shard == 0 {
			maps.Copy(queues, whole)
		}
		configs = append(configs, d.serverConfig(queues, max(concurrency/parts, 1), func() int { return max(d.concurrency(d.size())/parts, 1) }))
	}
	priority, bulk := map[string]int{}, d.names(0, true)
	for shard := range shards + 1 {
		priority[wire.QueueName{Mailer: d.mailer, Queue: d.top, Shard: shard}.String()] = 1
		maps.Copy(bulk, d.names(shard, true))
	}
	if d.priority != nil {
		config := d.serverConfig(priority, d.cfg.BatchSize, nil)
		config.TaskCheckInterval, config.Eager = d.looks(priorityCheckInterval), d.lately
		configs = append(configs, config)
	}
	config := d.serverConfig(bulk, bulkTasks(d.most), func() int {
		return min(bulkTasks(d.size()), max(d.rates.inHand(maxInHand)/usualBulk, 1))
	})
	config.TaskCheckInterval = d.looks(bulkCheckInterval)
	return append(configs, config)
}

// usualBulk is how many messages a bulk task has, for what a worker takes in hand of a rate; maxInHand is more than it ever has.
const (
	usualBulk = 100
	maxInHand = 1_000_000
)

// bulkTasks is how many bulk tasks are in flight at once over so many connections.
func bulkTasks(connections int) int { return 8 + connections/4 }

// looks is how often a server looks for tasks that no hint tells it of.
func (d *dispatcher) looks(often time.Duration) time.Duration { return cmp.Or(d.cfg.lookEvery, often) }

// concurrency is how many tasks are in flight at once over so many connections: a batch for each, or a third of that
// where there are many, for those do not all begin a batch at the same time.
func (d *dispatcher) concurrency(connections int) int {
	const few = 400
	full := connections * d.cfg.BatchSize
	return cmp.Or(d.cfg.Concurrency, min(full, max(full/3, few)))
}

// names are asynq's names of one part of the queues, and their weights.
func (d *dispatcher) names(shard int, bulk bool) map[string]int {
	names := map[string]int{}
	for queue, weight := range d.cfg.Queues {
		names[wire.QueueName{Mailer: d.mailer, Queue: queue, Shard: shard, Bulk: bulk}.String()] = weight
	}
	return names
}

// addSenders makes the connections, the one for the priority queue last. The numbers of the senders begin after before, and
// there may be so many more as it returns.
func (d *dispatcher) addSenders(client redis.UniversalClient, p policy, ledger *ledger, before int) (numbers int, err error) {
	d.policy, d.ledger, d.before = p, ledger, before
	log := *d.cfg.Logger
	if d.mailer != "" {
		log = log.With().Str("mailer", d.mailer).Logger()
	}
	d.log = log
	d.pool = newConnections(d.mailer, client, d.cfg, log)
	d.pool.growth = newGrowth(d.connections, d.most)
	d.rates = newRates(client, ratelimit.Config{
		Mailer: d.mailer, Rates: d.cfg.Rates[d.mailer], Share: d.share, SlowPause: d.cfg.rateSlowPause, RaiseWait: d.cfg.rateRaiseWait,
	}, d.cfg.Observers, log)
	if d.rates.rates.Connections > 0 {
		d.leases = newLeases(d.rates, d.pool, d.breaker, d.hasMail)
	}
	d.limits = newSessions(d.mailer, log, d.cfg.Observers)
	for range d.connections {
		if _, err := d.addSender(false); err != nil {
			return 0, err
		}
	}
	if d.priority != nil {
		if _, err := d.addSender(true); err != nil {
			return 0, err
		}
	}
	return len(d.senders) + d.most - d.connections, nil
}

func (d *dispatcher) addSender(dedicated bool) (*sender, error) {
	d.making.Lock()
	defer d.making.Unlock()
	backend, err := d.cfg.Connect(d.mailer)
	if err != nil {
		return nil, err
	}
	s := &sender{
		conn: d.pool.add(backend, dedicated), normal: d.normal, priority: d.priority, dedicated: dedicated, share: d.share,
		breaker: d.breaker, rates: d.rates, session: session{all: d.limits}, busy: &d.busy, ledger: d.ledger, policy: d.policy, log: d.log, view: redact.View{Addresses: d.cfg.ShowAddresses},
		batchSize: d.cfg.BatchSize, batchTimeout: d.cfg.BatchTimeout,
		turnPatience: d.cfg.turnPatience, openPatience: d.cfg.openPatience,
		inHand: d.inHand, observers: d.cfg.Observers, tracer: d.cfg.Tracer, hooks: hooks{d.cfg.BeforeSend, d.log}, mailer: d.mailer, number: d.before + len(d.senders) + 1,
	}
	d.senders = append(d.senders, s)
	return s, nil
}

// start makes the senders and the asynq servers ready, which give their tasks to the handler. They run when wake
// is called.
func (d *dispatcher) start(stop, work context.Context, client *asynqbatch.Client, handler asynq.Handler, senders *sync.WaitGroup) {
	d.run = sync.OnceFunc(func() {
		senders.Go(func() {
			d.pool.loginsOf(nil).start(stop)
			if d.leases != nil {
				senders.Go(func() { d.leases.run(stop) })
			}
			for _, s := range d.senders {
				senders.Go(func() { s.run(stop, work) })
			}
			if d.most > d.connections {
				d.pool.grow(stop, func() (inHand, idle int) { return d.inHand(), d.idle() }, func() error {
					s, err := d.addSender(false)
					if err == nil {
						senders.Go(func() { s.run(stop, work) })
					}
					return err
				})
			}
		})
		d.begun.Store(true)
	})
	begin := func() {
		for _, to := range d.ways() {
			to.run()
		}
	}
	d.servers = asynqbatch.NewOnDemand(begin, func() []*asynqbatch.Server {
		configs := d.serverConfigs()
		all := make([]*asynqbatch.Server, 0, len(configs))
		for _, c := range configs {
			s := client.NewServer(c)
			if err := s.Start(handler); err != nil {
				d.cfg.Logger.Error().Err(err).Msg("an asynq server does not start") // one that is new always does
			}
			all = append(all, s)
		}
		return all
	})
}

// queueNames are asynq's names of all queues of the mailer.
func (d *dispatcher) queueNames() []string {
	var all []string
	for shard := range int(d.shards.Load()) + 1 {
		for _, bulk := range []bool{false, true} {
			all = slices.AppendSeq(all, maps.Keys(d.names(shard, bulk)))
		}
	}
	return all
}

// fetches is how many tasks a server may have that has room for so many. While the relay takes no mail there is nothing to be done
// with any: others may reach it. When it may be back one message is tried, before all come again.
func (d *dispatcher) fetches(all int) int {
	switch {
	case d.holder.holds(), d.alone.Busy():
		return 0
	case d.holder.asking():
		return 1
	}
	return d.rates.inHand(all)
}

// idle is how many connections have nothing to do. More of them would not help where mail waits for its rate.
func (d *dispatcher) idle() int {
	if d.rates.Waits() {
		return max(d.busy.idle(false), 1)
	}
	return d.busy.idle(false)
}

// hasMail reports whether the mailer has mail in hand, or, if awake, may have some in its queues.
func (d *dispatcher) hasMail(awake bool) bool {
	return d.inHand() > 0 || d.busy.wires.Load() > 0 || awake && d.servers.Awake()
}

// waitsFor is why a task goes back that has found no sender in time.
func (d *dispatcher) waitsFor(why BackReason) BackReason {
	if why == BackTime && d.rates.Waits() {
		return BackRate
	}
	return why
}

// unbegun takes the tasks that no handler has yet, if what is not on the wire is to go back. If only some of it is, since it is
// paused, they go back too: those that are not paused are fetched again at once.
func (d *dispatcher) unbegun(halted bool) (keys []string, all bool) {
	if all = d.holder.holds() || d.alone.Busy(); !all && !halted {
		return nil, false
	}
	for _, s := range d.servers.Current() {
		keys = append(keys, s.Unbegun()...)
	}
	return keys, all
}

// holds reports whether what waits for the relay is to wait in Redis, and holdsNow is closed while that is so.
func (d *dispatcher) holds() bool               { return d.holder.holds() }
func (d *dispatcher) holdsNow() <-chan struct{} { return d.holder.holdsNow() }

// goesBack returns why a task is to go back that is not on the wire, nil if it is not.
func (d *dispatcher) goesBack() error {
	switch {
	case d.holder.holds():
		return givenBack(BackHeld)
	case closed(d.alone.RoomNeeded()):
		return givenBack(BackAlone)
	}
	return nil
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// untilBack is ctx until the task is to go back that is not on the wire. It is for what seldom waits.
func (d *dispatcher) untilBack(ctx context.Context, t *taskMessage) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	tripping, room, halt := d.holder.holdsNow(), d.alone.RoomNeeded(), t.handed.halt
	if t.alone {
		room = nil
	}
	go func() {
		select {
		case <-ctx.Done():
		case <-tripping:
		case <-room:
		case <-halt:
		}
		cancel()
	}()
	return ctx, cancel
}

// serverConfig is how asynq is used. most, if not nil, is how many tasks there may be for now, of as many as concurrency says.
func (d *dispatcher) serverConfig(queues map[string]int, concurrency int, most func() int) asynqbatch.ServerConfig {
	limit := d.fetches
	if most != nil && (d.most > d.connections || d.rates.Limits() || d.route != nil) {
		limit = func(all int) int { return d.fetches(min(all, most())) }
	}
	return asynqbatch.ServerConfig{Config: asynq.Config{
		Concurrency:              concurrency,
		Queues:                   queues,
		TaskCheckInterval:        d.looks(checkInterval),
		DelayedTaskCheckInterval: time.Second,
		RetryDelayFunc:           d.policy.retryDelay,
		IsFailure:                costsTry,
		ShutdownTimeout:          givingBack,
		LogLevel:                 asynq.WarnLevel,
	}, Limit: limit}
}

// room takes the memory for messages of a task, all at once: one after the other, two tasks could each wait
// for what the other one has. It is false if ctx ended first, or what is not on the wire is to go back.
func (d *dispatcher) room(ctx context.Context, t *taskMessage, messages ...*taskMessage) (release func(), ok bool) {
	small := weight.SmallMessage
	if t.name.Bulk {
		small = weight.SmallBulk
	}
	need := need(messages)
	if need <= int(small) || t.read.Covers(need) {
		return func() {}, true
	}
	t.read.Release()
	ctx, cancel := d.untilBack(ctx, t)
	defer cancel()
	return d.memoryFor(t).Take(ctx, need)
}

// roomToRead takes the memory to read a task, which is for its messages then, until t.read is released.
func (d *dispatcher) roomToRead(ctx context.Context, t *taskMessage, need int) (err error) {
	ctx, cancel := d.untilBack(ctx, t)
	defer cancel()
	var ok bool
	if t.read, ok = d.memoryFor(t).Reserve(ctx, need); !ok {
		return cmp.Or(d.goesBack(), givenBack(BackMemory))
	}
	return nil
}

// memoryFor is the budget of the channel that a task comes by.
func (d *dispatcher) memoryFor(t *taskMessage) *weight.Budget {
	if d.isPriority(t.name) {
		return d.priorityMemory
	}
	return d.memory
}

// way is where messages go that no sender has begun.
type way struct {
	to    *dispatcher     // whose senders
	away  <-chan struct{} // closed when they are to go another way; nil if there is none
	route *route          // nil if there is none
	index int             // of the member
}

// joins gives the dispatcher of a mailer its members. The route gets a token in changed when there is something to look at.
func (d *dispatcher) joins(members []*dispatcher, f Failover, changed chan<- struct{}) {
	d.members, d.route = members, newRoute(d.mailer, f, changed)
	d.holder = d.route
	d.connections, d.most = 0, 0
	for i, m := range members {
		m.breaker.watch(func(s breakerState) { d.route.sees(i, s) })
		if f.Weighted {
			d.connections, d.most = d.connections+m.connections, d.most+m.most
		} else {
			d.connections, d.most = max(d.connections, m.connections), max(d.most, m.most)
		}
	}
}

// withoutSenders prepares the dispatcher of a mailer with members: its rates are theirs.
func (d *dispatcher) withoutSenders(client redis.UniversalClient, p policy) {
	d.policy = p
	d.rates = newRates(client, ratelimit.Config{Mailer: d.mailer}, nil, *d.cfg.Logger)
}

// ways are the dispatchers whose senders may send the mailer's messages.
func (d *dispatcher) ways() []*dispatcher {
	if d.route == nil {
		return []*dispatcher{d}
	}
	return d.members
}

// way returns where so many messages are to go now, and how many of them: all, or one if a member is probed. leave is to be called
// for each of them. ok is false if no member takes mail.
func (d *dispatcher) way(messages int) (w way, take int, ok bool) {
	if d.route == nil {
		return way{to: d}, messages, true
	}
	i, take, away, ok := d.route.choose(messages)
	if !ok {
		return way{}, 0, false
	}
	d.members[i].guests.Add(int32(take)) //nolint:gosec // a bulk task has few
	return way{d.members[i], away, d.route, i}, take, true
}

// leave notes that messages have gone the way, or go another one.
func (w way) leave(messages int) {
	if w.route != nil {
		w.to.guests.Add(-int32(messages)) //nolint:gosec // as above
		w.route.left(w.index, messages)
	}
}

// isAway reports whether what went this way, and no sender has begun, is to go another one.
func (w way) isAway() bool { return w.away != nil && closed(w.away) }

// moves is closed when a member goes away or comes back. It is nil for a mailer without members.
func (d *dispatcher) moves() <-chan struct{} {
	if d.route == nil {
		return nil
	}
	return d.route.moves()
}

// inHand is how many messages handlers have for the mailer's senders.
func (d *dispatcher) inHand() int { return d.handed.count() + int(d.guests.Load()) }

// size is how many connections there are to be.
func (d *dispatcher) size() int { return d.sum(func(to *dispatcher) int { return to.pool.size() }) }

// shared is how many of these the relay allows, or those of the members that serve.
func (d *dispatcher) shared() int { return d.sum(func(to *dispatcher) int { return to.pool.shared() }) }

// sum adds up a number of the dispatchers whose senders send the mailer's messages now. It is at least 1.
func (d *dispatcher) sum(of func(*dispatcher) int) int {
	if d.route == nil {
		return of(d)
	}
	n := 0
	for _, i := range d.route.serving() {
		n += of(d.members[i])
	}
	return max(n, 1)
}

// lately reports whether the mailer has sent something a moment ago.
func (d *dispatcher) lately() bool {
	for _, to := range d.ways() {
		if to.busy.lately() {
			return true
		}
	}
	return false
}

// look finds out which members stand still.
func (d *dispatcher) look(now time.Time) {
	for i, m := range d.members {
		d.route.stands(i, m.busy.stands(now, d.cfg.stillPatience))
	}
}

// pausedMembers notes which members are paused.
func (d *dispatcher) pausedMembers(paused func(mailer string) bool) {
	for i, m := range d.members {
		d.route.pauses(i, paused(m.mailer))
	}
}

// held returns why the relay takes no mail, nil if it does.
func (d *dispatcher) held() error { return d.holder.held() }

// stop ends what the senders leave behind, and what they would have closed if they had run.
func (d *dispatcher) stop() {
	d.breaker.stop()
	if d.leases != nil && d.begun.Load() {
		d.leases.release()
	}
	if !d.begun.Load() {
		for _, s := range d.senders {
			_ = s.conn.backend.Close()
		}
	}
}

// every does something now and again until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}
