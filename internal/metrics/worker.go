package metrics

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mailpouch/mailpouch/backends/dkim"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

// workerMetrics count what a worker reports to its observer.
type workerMetrics struct {
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

func newWorkerMetrics(b *book) workerMetrics {
	waits := []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}
	return workerMetrics{
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
}

// Signs notes how many keys sign a mailer's messages (DKIM), "" being the default one.
func (m *Metrics) Signs(name string, keys int) {
	m.worker.signs.WithLabelValues(m.mailers.known(name, defaultMailer)).Set(float64(keys))
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
func (m *Metrics) Observer() tasks.Observer {
	return tasks.Observer{
		Batch: m.batch, Outcome: m.outcome, Held: m.heldBack, Back: m.givenBack, Skew: m.skewed,
		Connections: m.connections, Grown: m.grown, SessionLimit: m.sessionLimit, Swept: m.sweptUp, Foreign: m.putOff,
		Failover: m.failover, Rate: m.rate, RateWaited: m.rateWaited, Leased: m.leased,
	}
}

func (m *Metrics) failover(s tasks.FailoverState) {
	name := m.mailers.known(s.Mailer, defaultMailer)
	m.worker.passedOver.WithLabelValues(name).Set(float64(s.PassedOver()))
	for _, one := range s.Members {
		member, serves := m.mailers.known(one.Mailer, defaultMailer), 0.0
		if one.Serves {
			serves = 1
		}
		m.worker.serves.WithLabelValues(name, member).Set(serves)
		m.worker.members.WithLabelValues(name, member) // zero before the first
	}
}

// Recipients notes the rules for who gets a mailer's mail, "" being the default one.
func (m *Metrics) Recipients(mailer string, override, allowed bool) {
	for rule, on := range map[string]bool{"override": override, "allowed": allowed} {
		value := 0.0
		if on {
			value = 1
		}
		m.worker.rules.WithLabelValues(m.mailers.known(mailer, defaultMailer), rule).Set(value)
	}
}

// Reloaded counts that the files of secrets were read again: of how many the value before was kept, and whether what
// they say is used.
func (m *Metrics) Reloaded(wrong int, used bool) {
	result := "used"
	if !used {
		result = "refused"
	}
	m.worker.reloads.WithLabelValues(result).Inc()
	m.worker.wrongFiles.WithLabelValues().Set(float64(wrong))
}

func (m *Metrics) rate(s tasks.RateState) {
	name := m.mailers.known(s.Mailer, defaultMailer)
	m.worker.rateLimit.WithLabelValues(name).Set(s.PerSecond)
	m.worker.rate.WithLabelValues(name).Set(s.PerSecond * s.Factor)
}

func (m *Metrics) rateWaited(name string, waited time.Duration) {
	m.worker.rateWaited.WithLabelValues(m.mailers.known(name, defaultMailer)).Add(waited.Seconds())
}

func (m *Metrics) leased(name string, connections, _ int) {
	m.worker.leased.WithLabelValues(m.mailers.known(name, defaultMailer)).Set(float64(connections))
}

func (m *Metrics) putOff(why tasks.Foreign) { m.worker.foreign.WithLabelValues(string(why)).Inc() }

func (m *Metrics) sweptUp(s tasks.Swept) {
	m.worker.swept.WithLabelValues(m.mailers.known(s.Mailer, defaultMailer), m.queues.known(s.Queue, ""), s.Why).Add(float64(s.Tasks))
}

func (m *Metrics) batch(b tasks.Batch) {
	name := m.mailers.known(b.Mailer, defaultMailer)
	m.worker.batches.WithLabelValues(name).Observe(float64(b.Size))
	m.worker.batchTime.WithLabelValues(name).Observe(b.Duration.Seconds())
}

func (m *Metrics) outcome(o tasks.Outcome) {
	w := &m.worker
	name, queue := m.mailers.known(o.Mailer, defaultMailer), m.queues.known(o.Queue, "")
	action := other
	if slices.Contains(actions(), o.Action) {
		action = label(o.Action)
	}
	w.messages.WithLabelValues(name, queue, action).Inc()
	if o.Action == tasks.ActionForwarded {
		return // it has only come to the right place
	}
	m.countTags(name, action, o.Tags)
	w.took.WithLabelValues(name).Observe(o.Took.Seconds())
	if o.Try == 1 {
		w.waited.WithLabelValues(name, queue).Observe(o.Waited.Seconds())
	}
	if o.Action == tasks.ActionSent {
		w.delivered.WithLabelValues(name, queue).Observe((o.Waited + o.Took).Seconds())
		if o.Member != "" {
			w.members.WithLabelValues(name, m.mailers.known(o.Member, defaultMailer)).Inc()
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
func (m *Metrics) countTags(name, action string, tags []string) {
	if len(m.tags) == 0 {
		return
	}
	var counted names
	for _, tag := range tags {
		if tag = m.tags.known(tag, other); !slices.Contains(counted, tag) {
			counted = append(counted, tag)
			m.worker.tagged.WithLabelValues(name, tag, action).Inc()
		}
	}
}

func (m *Metrics) skewed(ahead time.Duration) { m.worker.skew.WithLabelValues().Set(ahead.Seconds()) }

func (m *Metrics) heldBack(name string, reason error) {
	name = m.mailers.known(name, defaultMailer)
	if reason == nil {
		m.worker.held.WithLabelValues(name).Set(0)
		return
	}
	m.worker.held.WithLabelValues(name).Set(1)
	m.worker.holds.WithLabelValues(name, step(reason), code(reason)).Inc()
}

// reasons are all for which a task goes back untried.
func reasons() []tasks.BackReason {
	return []tasks.BackReason{
		tasks.BackHeld, tasks.BackPaused, tasks.BackAlone, tasks.BackTime, tasks.BackMemory, tasks.BackContents, tasks.BackRedis, tasks.BackRate, tasks.BackForeign,
	}
}

func (m *Metrics) givenBack(b tasks.GivenBack) {
	reason := other
	if slices.Contains(reasons(), b.Reason) {
		reason = string(b.Reason)
	}
	m.worker.back.WithLabelValues(m.mailers.known(b.Mailer, defaultMailer), m.queues.known(b.Queue, ""), reason).Inc()
}

func (m *Metrics) connections(name string, allowed, wanted int) {
	m.worker.short.WithLabelValues(m.mailers.known(name, defaultMailer)).Set(float64(wanted - allowed))
}

func (m *Metrics) grown(name string, connections, _ int) {
	m.worker.grown.WithLabelValues(m.mailers.known(name, defaultMailer)).Set(float64(connections))
}

func (m *Metrics) sessionLimit(name string, messages int) {
	m.worker.carries.WithLabelValues(m.mailers.known(name, defaultMailer)).Set(float64(messages))
}

// class is the class of an error, as the value of a label. The error may be a relay's reply,
// or one from before the relay was asked.
func class(err error) string {
	var failure *mailer.SendError
	if !errors.As(err, &failure) && !mailer.IsBadInput(err) {
		return "none"
	}
	return mailer.ClassOf(err).String()
}

// code is the reply code in an error, as the value of a label.
func code(err error) string {
	var failure *mailer.SendError
	if !errors.As(err, &failure) || failure.Code < 200 || failure.Code > 599 {
		return "none"
	}
	return strconv.Itoa(failure.Code)
}

// step is the step of a conversation that an error names, as the value of a label.
func step(err error) string {
	var failure *mailer.SendError
	if !errors.As(err, &failure) {
		return other
	}
	known := []mailer.Step{
		mailer.StepRender, mailer.StepPolicy, mailer.StepConnect, mailer.StepGreet, mailer.StepHello, mailer.StepTLS, mailer.StepAuth,
		mailer.StepReset, mailer.StepMail, mailer.StepRcpt, mailer.StepData, mailer.StepBody, mailer.StepEnd,
	}
	if !slices.Contains(known, failure.Step) {
		return other
	}
	return stepLabel(failure.Step)
}

// stepLabel writes a step as the value of a label: "mail", "end_of_data".
func stepLabel(s mailer.Step) string { return strings.ReplaceAll(strings.ToLower(string(s)), " ", "_") }
