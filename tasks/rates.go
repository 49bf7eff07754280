package tasks

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/ratelimit"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/mailer"
)

// inHandFor is for how long a worker takes mail in hand that waits for its rate. All else waits in Redis, where other workers
// find it, and where it can be paused.
const inHandFor = time.Minute

// slowPatience is how long Redis may take to be told that the relay wants less. A sender waits for it.
const slowPatience = 2 * time.Second

// rates is what the senders of a mailer, and the handlers of its tasks, ask about its rates. Before a message may be on the wire
// a sender asks for it; until then it may be cancelled, paused and given back, and it costs no try.
type rates struct {
	*ratelimit.Limiter
	rates     Rates
	mailer    string
	log       zerolog.Logger
	observers observers

	told func(ratelimit.Answer) // hears every answer, in tests

	mu     sync.Mutex
	factor float64 // that was said last
}

// newRates returns the rates of a mailer, of which c has all but who is told.
func newRates(client redis.UniversalClient, c ratelimit.Config, told observers, log zerolog.Logger) *rates {
	all := &rates{rates: c.Rates, mailer: c.Mailer, log: log, observers: told, factor: 1}
	c.Told = all.answered
	all.Limiter = ratelimit.New(client, c)
	if all.Limits() || len(c.Rates.Domains) > 0 || c.Rates.Connections > 0 {
		told.rate(all.state())
	}
	return all
}

// take waits until messages that are about to be sent may go, and returns how many of them, from the first. It is 0 if over is
// closed, or ctx has ended, and if Redis does not answer.
func (r *rates) take(ctx context.Context, over <-chan struct{}, batch []*delivery) (n int, err error) {
	if !r.Limits() || len(batch) == 0 {
		return len(batch), nil
	}
	urgent := batch[0].urgent
	if i := slices.IndexFunc(batch, func(d *delivery) bool { return d.urgent != urgent }); i > 0 {
		batch = batch[:i]
	}
	n, waited, err := r.Take(ctx, over, len(batch), r.recipients(batch), urgent)
	if waited > 0 {
		r.observers.rateWaited(r.mailer, waited)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, ratelimit.ErrOver) {
		return 0, redisconn.Unavailable(err)
	}
	return n, nil
}

// unused says that of messages which were taken only some were sent.
func (r *rates) unused(taken, sent []*delivery) {
	n := len(taken) - len(sent)
	if !r.Limits() || n <= 0 {
		return
	}
	cost := 0
	for _, d := range taken {
		cost += d.cost
	}
	for _, d := range sent {
		cost -= d.cost
	}
	r.GiveBack(n, cost)
}

// recipients are how many each message has, nil if they do not count.
func (r *rates) recipients(batch []*delivery) []int {
	if !r.CountsRecipients() {
		return nil
	}
	list := make([]int, len(batch))
	for i, d := range batch {
		if m := d.message; m != nil { // else its handler has it again
			d.cost = max(len(m.Recipients()), 1)
		}
		list[i] = max(d.cost, 1)
	}
	return list
}

// answered notes what Redis has said.
func (r *rates) answered(a ratelimit.Answer) {
	r.mu.Lock()
	was := r.factor
	if r.told != nil {
		r.told(a)
	}
	r.factor = a.Factor
	r.mu.Unlock()
	if was == a.Factor {
		return
	}
	r.observers.rate(r.state())
	switch line := r.log.With().Float64("rate_per_second", a.Factor*r.rates.Messages.PerSecond()).Logger(); {
	case was == 1:
		line.Warn().Msg("the relay wants less mail: all workers send slower, and faster again as it accepts mail")
	case a.Factor == 1:
		line.Info().Msg("the relay takes mail at the whole rate again")
	}
}

// heard follows what the relay says of a message.
func (r *rates) heard(err error) {
	switch {
	case !r.Limits():
	case err == nil:
		r.Accepted()
	case wantsLess(err):
		ctx, cancel := context.WithTimeout(context.Background(), slowPatience)
		defer cancel()
		if err := r.Slow(ctx); err != nil {
			r.log.Debug().Err(redisconn.Unavailable(err)).Msg("the rate cannot be lowered: Redis does not answer")
		}
	}
}

// wantsLess reports whether a reply says that the relay gets too much: 421, 432 and 454, which it says of itself, and any 4yz that
// says so in words. A recipient of whom it says 421 or 454 may be refused for other reasons, and "too many recipients"
// (X.5.3) is about one transaction. The text decides nothing but how fast mail goes.
func wantsLess(err error) bool {
	var e *mailer.SendError
	if !errors.As(err, &e) || e.Code/100 != 4 {
		return false
	}
	if e.Step != mailer.StepRcpt && (e.Code == 421 || e.Code == 432 || e.Code == 454) {
		return true
	}
	text := strings.ToLower(e.Text)
	return !strings.HasSuffix(e.Enhanced, ".5.3") && slices.ContainsFunc(
		[]string{"too many", "too much", "too fast", "throttl", "rate limit", "rate exceeded", "limit exceeded"},
		func(words string) bool { return strings.Contains(text, words) })
}

// inHand is how many messages a worker may have in hand, of so many.
func (r *rates) inHand(all int) int {
	for _, l := range []RateLimits{r.rates.Messages, r.rates.Recipients} {
		if n := l.Within(inHandFor); n > 0 {
			all = min(all, max(int(float64(n)*r.Factor()), 1))
		}
	}
	return all
}

// places asks when messages may go by the domains of their recipients.
func (r *rates) places(ctx context.Context, messages []*taskMessage) ([]ratelimit.Place, error) {
	if len(r.rates.Domains) == 0 {
		return make([]ratelimit.Place, len(messages)), nil
	}
	domains := make([][]string, len(messages))
	for i, t := range messages {
		domains[i] = domainsOf(t.message())
	}
	places, err := r.Domains(ctx, domains)
	if err != nil {
		return nil, redisconn.Unavailable(err)
	}
	return places, nil
}

// domainsOf are those of a message's recipients, as its envelope has them. One that has no envelope cannot be sent anyway.
func domainsOf(m *mailer.EmailMessage) (domains []string) {
	e, err := m.Envelope()
	if err != nil {
		return nil
	}
	for _, to := range e.To {
		domains = append(domains, to[strings.LastIndexByte(to, '@')+1:])
	}
	return domains
}

// state is what observers hear.
func (r *rates) state() RateState {
	s := RateState{
		Mailer: r.mailer, Messages: r.rates.Messages.String(), Recipients: r.rates.Recipients.String(), Domains: r.rates.Domains.String(),
		Connections: r.rates.Connections, PerSecond: r.rates.Messages.PerSecond(), Factor: 1,
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Factor = r.factor
	return s
}
