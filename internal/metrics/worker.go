package metrics

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// workerMetrics count what a worker reports to its observer.
type workerMetrics struct {
	known labels

	messages, failures, refused *prometheus.CounterVec
	waited, took, delivered     *prometheus.HistogramVec

	batches, batchTime *prometheus.HistogramVec

	back           *prometheus.CounterVec
	held, short    *prometheus.GaugeVec
	grown          *prometheus.GaugeVec
	carries        *prometheus.GaugeVec
	skew           *prometheus.GaugeVec
	holds          *prometheus.CounterVec
	signs          *prometheus.GaugeVec
	unsigned       *prometheus.CounterVec
	swept, foreign *prometheus.CounterVec
	tagged         *prometheus.CounterVec
	reloads        *prometheus.CounterVec
	wrongFiles     *prometheus.GaugeVec
	rules          *prometheus.GaugeVec

	serves, passedOver      *prometheus.GaugeVec // of members
	members                 *prometheus.CounterVec
	rate, rateLimit, leased *prometheus.GaugeVec
	rateWaited              *prometheus.CounterVec
}

func newWorkerMetrics(b *book, known labels) *workerMetrics {
	waits := []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}
	w := &workerMetrics{
		known: known,
		messages: b.counter("mailpouch_messages_total",
			"Tries of messages that have ended, by what the worker did then: `sent`, `sent_before` (the ledger knew it, it was not sent again), "+
				"`retry`, `dead_letter`, `failed_silently`, `skipped` (no recipients), `cancelled`, `forwarded` (to its mailer's queue).",
			"mailer", "queue", "outcome"),
		failures: b.counter("mailpouch_failures_total",
			"Tries that failed, by class (`temporary`, `permanent`, `unavailable`, `unknown`; `none` where no relay was asked, as for a message "+
				"that is too old), and by reply code, `none` without one.",
			"mailer", "class", "code"),
		refused: b.counter("mailpouch_recipients_refused_total",
			"Recipients that the relay did not take, whether it took the message for others or not.", "mailer", "class", "code"),
		waited: b.histogram("mailpouch_queue_wait_seconds",
			"From the time when a message was due until a worker took it for its first try.", waits, "mailer", "queue"),
		took: b.histogram("mailpouch_worker_seconds",
			"From the time when a worker took a message until that try has ended: waiting for a connection, and sending.", waits, "mailer"),
		delivered: b.histogram("mailpouch_delivery_seconds",
			"From the time when a message was due until the relay has accepted it, all tries included.", waits, "mailer", "queue"),
		batches: b.histogram("mailpouch_batch_messages", "Messages that a connection took at once.",
			[]float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000}, "mailer"),
		batchTime: b.histogram("mailpouch_batch_seconds", "How long a connection took for what it took at once.", stepBuckets(), "mailer"),
		skew: b.gauge("mailpouch_clock_skew_seconds",
			"How far the clock of this worker's machine is ahead of that of Redis; negative if it is behind. Measured at the start and every minute."),
		back: b.counter("mailpouch_given_back_total",
			"Tasks that went back to their queue untried, without a try spent: `held` (the relay takes no mail here, another worker may reach it), "+
				"`paused` (its queue, mailer or mailing is), `rate` (its turn by EMAIL_RATE or EMAIL_RATE_DOMAINS is later), `alone` (a task that has killed workers runs alone). What follows should not happen often: `time` (no connection was free for "+
				"EMAIL_TASK_TIMEOUT), `memory` (nor memory), `contents` (Redis did not give out an attachment or a body), `redis` (what became of "+
				"the message could not be written down), `foreign` (the task is another program's, or a newer version's).",
			"mailer", "queue", "reason"),
		held: b.gauge("mailpouch_mailer_held",
			"1 while this worker takes none of a mailer's messages because its relay takes none, else 0.", "mailer"),
		short: b.gauge("mailpouch_mailer_connections_missing",
			"Connections that this worker would open to a mailer's relay and that the relay does not allow, so that it goes on with fewer.", "mailer"),
		grown: b.gauge("mailpouch_mailer_connections",
			"Connections that this worker has to a mailer's relay while there is mail: as many as EMAIL_CONNECTIONS says, or as they have grown to. "+
				"One for the queue of the highest weight is not among them.", "mailer"),
		carries: b.gauge("mailpouch_mailer_messages_per_connection",
			"Messages that a mailer's relay takes over one connection, as this worker has learned; 0 if it knows of no such limit.", "mailer"),
		holds: b.counter("mailpouch_mailer_holds_total",
			"How often a worker began to hold a mailer, by the step that failed and the reply code.", "mailer", "step", "code"),
		signs: b.gauge("mailpouch_dkim_keys", "Keys that the settings have to sign a mailer's messages with (DKIM); 0: they are not signed.", "mailer"),
		unsigned: b.counter("mailpouch_dkim_failures_total",
			"Tries that failed because a key could not sign the message (DKIM). Nothing of it was sent.", "mailer"),
		swept: b.counter("mailpouch_swept_total",
			"Tasks of which dead letters were made where they waited in Redis: `expired`, their time was up; `lost`, they were in no list of their queue.",
			"mailer", "queue", "why"),
		serves: b.gauge("mailpouch_failover_serves",
			"1 while messages of a mailer with members (EMAIL_MEMBERS) go to this member, as this worker sees it, else 0.", "mailer", "member"),
		passedOver: b.gauge("mailpouch_failover_passed_over",
			"Members of a mailer that would serve and take no mail: those before the one that serves, and with weights all of them.", "mailer"),
		members: b.counter("mailpouch_failover_messages_total",
			"Messages of a mailer with members that were accepted, by the member that they went with.", "mailer", "member"),
		rateLimit: b.gauge("mailpouch_mailer_rate_limit",
			"Messages a second that all workers together may send to a mailer's relay in the long run, by the lowest limit of EMAIL_RATE; 0: no limit.", "mailer"),
		rate: b.gauge("mailpouch_mailer_rate",
			"The same as it is now: less while the relay says that it gets too much, as this worker has heard it last.", "mailer"),
		rateWaited: b.counter("mailpouch_mailer_rate_wait_seconds_total",
			"How long connections of this worker have waited until messages might go by EMAIL_RATE and EMAIL_RATE_RECIPIENTS, all together.", "mailer"),
		leased: b.gauge("mailpouch_mailer_connections_leased",
			"Connections that this worker may have of those of EMAIL_RATE_CONNECTIONS, which are for all workers together; 0 also if there is no such limit.", "mailer"),
		foreign: b.counter("mailpouch_foreign_tasks_total",
			"How often a worker put a task off that is not its own: `type`, of another program; `version`, of a newer version of this one.", "why"),
		tagged: b.counter("mailpouch_tagged_messages_total",
			"Tries of messages with tags that have ended, by the tags that EMAIL_METRICS_TAGS names; all others are `other`. A message counts for each of its tags. "+
				"There is none if the setting is empty.", "mailer", "tag", "outcome"),
		reloads: b.counter("mailpouch_reloads_total",
			"How often a worker has read the files of secrets again (SIGHUP), by whether it uses what they say: `used`, or `refused`, since no backend could be made of it.", "result"),
		rules: b.gauge("mailpouch_mailer_recipients_rule",
			"1 if a setting says who gets a mailer's mail, else 0: `override`, all of it goes to EMAIL_OVERRIDE_RECIPIENTS and none to its recipients; `allowed`, "+
				"only EMAIL_ALLOWED_RECIPIENTS get any. In production it should be 0.", "mailer", "rule"),
		wrongFiles: b.gauge("mailpouch_secret_files_wrong",
			"Files of secrets that were wrong when they were read again, so that what they said before is still in use."),
	}
	for _, result := range []string{"used", "refused"} {
		w.reloads.WithLabelValues(result)
	}
	w.wrongFiles.WithLabelValues()
	return w
}

// begin makes the expected series at zero. A series that began with its first event would
// hide that event from rate() and increase().
func (w *workerMetrics) begin() {
	for _, mailer := range w.known.mailers {
		w.signs.WithLabelValues(mailer)
		w.unsigned.WithLabelValues(mailer)
		w.held.WithLabelValues(mailer)
		w.short.WithLabelValues(mailer)
		w.grown.WithLabelValues(mailer)
		w.carries.WithLabelValues(mailer)
		w.rate.WithLabelValues(mailer)
		w.rateLimit.WithLabelValues(mailer)
		w.rateWaited.WithLabelValues(mailer)
		w.leased.WithLabelValues(mailer)
		for _, rule := range []string{"override", "allowed"} {
			w.rules.WithLabelValues(mailer, rule)
		}
		for _, queue := range w.known.queues {
			for _, action := range actions() {
				w.messages.WithLabelValues(mailer, queue, label(action))
			}
			for _, reason := range reasons() {
				w.back.WithLabelValues(mailer, queue, string(reason))
			}
			for _, why := range []string{"expired", "lost"} {
				w.swept.WithLabelValues(mailer, queue, why)
			}
		}
		if len(w.known.tags) > 0 {
			for _, tag := range append(slices.Clone(w.known.tags), other) {
				w.tagged.WithLabelValues(mailer, tag, label(tasks.ActionSent))
				w.tagged.WithLabelValues(mailer, tag, label(tasks.ActionDead))
			}
		}
	}
	for _, why := range []string{"type", "version"} {
		w.foreign.WithLabelValues(why)
	}
}

// Signs notes how many keys sign a mailer's messages (DKIM), "" being the default one.
func (w *workerMetrics) Signs(name string, keys int) {
	w.signs.WithLabelValues(w.known.mailer(name)).Set(float64(keys))
}

// actions are all that a worker may do with a message.
func actions() []tasks.Action {
	return []tasks.Action{
		tasks.ActionSent, tasks.ActionSentBefore, tasks.ActionSkipped, tasks.ActionSilent,
		tasks.ActionRetry, tasks.ActionDead, tasks.ActionCancelled, tasks.ActionForwarded,
	}
}

// label writes an action as the value of a label.
func label(a tasks.Action) string { return strings.ReplaceAll(string(a), " ", "_") }

// Observer returns the observer for a worker.
func (w *workerMetrics) Observer() tasks.Observer {
	return tasks.Observer{
		Batch: w.batch, Outcome: w.outcome, Held: w.heldBack, Back: w.givenBack, Skew: w.skewed,
		Connections: w.connections, Grown: w.hasGrown, SessionLimit: w.sessionLimit, Swept: w.sweptUp, Foreign: w.putOff,
		Failover: w.failover, Rate: w.rated, RateWaited: w.waitedForRate, Leased: w.leases,
	}
}

func (w *workerMetrics) failover(s tasks.FailoverState) {
	name := w.known.mailer(s.Mailer)
	w.passedOver.WithLabelValues(name).Set(float64(s.PassedOver()))
	for _, one := range s.Members {
		member, serves := w.known.mailer(one.Mailer), 0.0
		if one.Serves {
			serves = 1
		}
		w.serves.WithLabelValues(name, member).Set(serves)
		w.members.WithLabelValues(name, member) // zero before the first
	}
}

// Recipients notes the rules for who gets a mailer's mail, "" being the default one.
func (w *workerMetrics) Recipients(mailer string, override, allowed bool) {
	for rule, on := range map[string]bool{"override": override, "allowed": allowed} {
		value := 0.0
		if on {
			value = 1
		}
		w.rules.WithLabelValues(w.known.mailer(mailer), rule).Set(value)
	}
}

// Reloaded counts that the files of secrets were read again: of how many the value before was kept, and whether what
// they say is used.
func (w *workerMetrics) Reloaded(wrong int, used bool) {
	result := "used"
	if !used {
		result = "refused"
	}
	w.reloads.WithLabelValues(result).Inc()
	w.wrongFiles.WithLabelValues().Set(float64(wrong))
}

func (w *workerMetrics) rated(s tasks.RateState) {
	name := w.known.mailer(s.Mailer)
	w.rateLimit.WithLabelValues(name).Set(s.PerSecond)
	w.rate.WithLabelValues(name).Set(s.PerSecond * s.Factor)
}

func (w *workerMetrics) waitedForRate(name string, waited time.Duration) {
	w.rateWaited.WithLabelValues(w.known.mailer(name)).Add(waited.Seconds())
}

func (w *workerMetrics) leases(name string, connections, _ int) {
	w.leased.WithLabelValues(w.known.mailer(name)).Set(float64(connections))
}

func (w *workerMetrics) putOff(why tasks.Foreign) { w.foreign.WithLabelValues(string(why)).Inc() }

func (w *workerMetrics) sweptUp(s tasks.Swept) {
	w.swept.WithLabelValues(w.known.mailer(s.Mailer), w.known.queue(s.Queue), s.Why).Add(float64(s.Tasks))
}

func (w *workerMetrics) batch(b tasks.Batch) {
	name := w.known.mailer(b.Mailer)
	w.batches.WithLabelValues(name).Observe(float64(b.Size))
	w.batchTime.WithLabelValues(name).Observe(b.Duration.Seconds())
}

func (w *workerMetrics) outcome(o tasks.Outcome) {
	name, queue := w.known.mailer(o.Mailer), w.known.queue(o.Queue)
	action := other
	if slices.Contains(actions(), o.Action) {
		action = label(o.Action)
	}
	w.messages.WithLabelValues(name, queue, action).Inc()
	if o.Action == tasks.ActionForwarded {
		return // it has only come to the right place
	}
	w.countTags(name, action, o.Tags)
	w.took.WithLabelValues(name).Observe(o.Took.Seconds())
	if o.Try == 1 {
		w.waited.WithLabelValues(name, queue).Observe(o.Waited.Seconds())
	}
	if o.Action == tasks.ActionSent {
		w.delivered.WithLabelValues(name, queue).Observe((o.Waited + o.Took).Seconds())
		if o.Member != "" {
			w.members.WithLabelValues(name, w.known.mailer(o.Member)).Inc()
		}
	}
	refused := o.Refused
	if o.Err != nil {
		w.failures.WithLabelValues(name, class(o.Err), code(o.Err)).Inc()
		if key := (*dkim.Error)(nil); errors.As(o.Err, &key) {
			w.unsigned.WithLabelValues(name).Inc()
		}
		var failure *mailer.SendError
		if errors.As(o.Err, &failure) {
			refused = append(slices.Clone(refused), failure.Refused...)
		}
	}
	for _, r := range refused {
		w.refused.WithLabelValues(name, r.Class.String(), code(r)).Inc()
	}
}

// countTags counts a message for each of its tags, those that are not named as one.
func (w *workerMetrics) countTags(name, action string, tags []string) {
	if len(w.known.tags) == 0 {
		return
	}
	var counted names
	for _, tag := range tags {
		if tag = w.known.tags.known(tag, other); !slices.Contains(counted, tag) {
			counted = append(counted, tag)
			w.tagged.WithLabelValues(name, tag, action).Inc()
		}
	}
}

func (w *workerMetrics) skewed(ahead time.Duration) { w.skew.WithLabelValues().Set(ahead.Seconds()) }

func (w *workerMetrics) heldBack(name string, reason error) {
	name = w.known.mailer(name)
	if reason == nil {
		w.held.WithLabelValues(name).Set(0)
		return
	}
	w.held.WithLabelValues(name).Set(1)
	w.holds.WithLabelValues(name, step(reason), code(reason)).Inc()
}

// reasons are all for which a task goes back untried.
func reasons() []tasks.BackReason {
	return []tasks.BackReason{
		tasks.BackHeld, tasks.BackPaused, tasks.BackAlone, tasks.BackTime, tasks.BackMemory, tasks.BackContents, tasks.BackRedis, tasks.BackRate, tasks.BackForeign,
	}
}

func (w *workerMetrics) givenBack(b tasks.GivenBack) {
	reason := other
	if slices.Contains(reasons(), b.Reason) {
		reason = string(b.Reason)
	}
	w.back.WithLabelValues(w.known.mailer(b.Mailer), w.known.queue(b.Queue), reason).Inc()
}

func (w *workerMetrics) connections(name string, allowed, wanted int) {
	w.short.WithLabelValues(w.known.mailer(name)).Set(float64(wanted - allowed))
}

func (w *workerMetrics) hasGrown(name string, connections, _ int) {
	w.grown.WithLabelValues(w.known.mailer(name)).Set(float64(connections))
}

func (w *workerMetrics) sessionLimit(name string, messages int) {
	w.carries.WithLabelValues(w.known.mailer(name)).Set(float64(messages))
}
