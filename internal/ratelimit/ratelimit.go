// Package ratelimit keeps all workers of a mailer together to the rates of its relay. What they have used is in Redis, by
// whose clock alone it is reckoned; a worker that is not told that a message may go waits.
//
// The rate of messages and recipients is reserved before a message may be on the wire, for several messages in a round trip, and
// maybe for fewer than were asked for. What is reserved and not used is used by the next ones of the same worker, if that is at once:
// a worker that dies loses what it has reserved, and nobody else waits for it.
//
//	worker A    reserve 40 messages     5 may go now
//	worker B    reserve 40 messages     none, ask again in 21 ms
//	worker A    the relay says 454      half the rate for all, from now on
//
// The same scripts keep the clients of an intake to the rates of their keys, as if each key were a mailer.
//
// Connections are leased: a worker says every few seconds how many it has and would have, and what it does not say any
// more others may have.
package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/rate"
	"github.com/mailpouch/mailpouch/internal/wire"
)

const (
	// window is how long before its time a message may go. So several go for one round trip, and a second has at most
	// 4.5 % more than its part.
	window = 45 * time.Millisecond

	// aheadUrgent is how far ahead a message of the queue of the highest weight may reserve.
	aheadUrgent = time.Second

	// AheadDomain is how far ahead a message may reserve by its domain.
	AheadDomain = 2 * time.Second

	// MaxDelay is how long a message is put off for its domain's sake at most. It then asks again.
	MaxDelay = 10 * time.Minute

	// keptForUrgent is the part of a quota that only messages of the queue of the highest weight may use.
	keptForUrgent = 0.05

	// remembered is how long Redis knows of a rate that nobody uses: longer than any period, so that one who sends once a week
	// has his burst.
	remembered = 35 * 24 * time.Hour

	// spareFor is how long what was reserved and not used is used for other messages.
	spareFor = time.Second

	// askAgain is how long the longest wait is without asking.
	askAgain = 10 * time.Second
)

// How the rate follows what the relay says. It is halved at once, and not twice for replies to messages that were under way together.
const (
	slowest   = 1.0 / 64
	slowPause = 5 * time.Second
	raiseStep = 0.05 // of the whole rate
	raiseWait = 10 * time.Second
)

// Limiter keeps to the rates of one mailer. It may be used by several goroutines.
type Limiter struct {
	redis  redis.UniversalClient
	key    string
	mailer string
	rates  rate.Rates
	limits []any // the arguments of the scripts
	share  float64
	fresh  int // 1 if Config.Fresh

	told func(Answer)

	slowPause, raiseWait time.Duration

	lanes    [2]chan struct{} // a token is with who asks: those of the same kind ask one after the other
	accepted atomic.Bool      // since it was asked last
	factor   atomic.Int64     // in ten-thousandths, as it was heard last
	waiting  atomic.Int32     // who sleeps
	slowed   atomic.Int64     // when the last reply was told that slows down

	mu    sync.Mutex
	spare spare

	hearing sync.Mutex
	heard   time.Time // when the last answer was given
}

// spare is what was reserved and not used.
type spare struct {
	messages, recipients int
	at                   time.Time
}

// Answer is what Redis has said.
type Answer struct {
	Messages int           // that may go
	Wait     time.Duration // until they may, or until to ask again
	At       time.Time     // by the clock of Redis
	Factor   float64       // of the rate, below 1 while the relay wants less
	Short    string        // the limit that there were no more of, "" if there was none
}

// Config configures a Limiter.
type Config struct {
	Mailer string // its name, "" for the default one
	Rates  rate.Rates

	// Share is that of the queue of the highest weight; 0: there is no other.
	Share float64

	// Fresh says that a limit of which Redis knows nothing was not used before. Otherwise there is no telling what the relay had, and
	// there is no burst then, and of a quota its even part.
	Fresh bool

	// Told is called with every answer, one after the other, from several goroutines. It may be nil.
	Told func(Answer)

	// SlowPause is how long after the rate was halved it is not halved again, and RaiseWait how long after it was changed it is raised: 5 s
	// and 10 s if zero.
	SlowPause, RaiseWait time.Duration
}

// New returns the Limiter of a mailer.
func New(client redis.UniversalClient, cfg Config) *Limiter {
	r := cfg.Rates
	l := &Limiter{
		redis: client, key: wire.RateKey(cfg.Mailer), mailer: cfg.Mailer, rates: r, share: cfg.Share, told: cfg.Told,
		raiseWait: cmp.Or(cfg.RaiseWait, raiseWait), slowPause: cmp.Or(cfg.SlowPause, slowPause),
		lanes: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
	}
	l.factor.Store(whole)
	if cfg.Fresh {
		l.fresh = 1
	}
	for _, one := range r.Messages {
		l.limits = append(l.limits, argsOf("m", one)...)
	}
	for _, one := range r.Recipients {
		l.limits = append(l.limits, argsOf("r", one)...)
	}
	return l
}

const whole = 10_000

// argsOf are the arguments of a limit. Its field is named after it: when it is changed it begins anew.
func argsOf(of string, l rate.Limit) []any {
	return []any{of + ":" + l.String(), of, l.Most, l.Per.Microseconds(), l.Burst}
}

// Limits reports whether there is a rate of messages or recipients.
func (l *Limiter) Limits() bool { return len(l.limits) > 0 }

// CountsRecipients reports whether Take needs to know of them.
func (l *Limiter) CountsRecipients() bool { return len(l.rates.Recipients) > 0 }

// Factor is what part of the rate there is, as was heard last: below 1 while the relay wants less.
func (l *Limiter) Factor() float64 { return float64(l.factor.Load()) / whole }

// ErrOver is why Take has reserved nothing: nobody waits for it any more.
var ErrOver = errors.New("ratelimit: the wait is over")

// Take waits until messages may go, and returns how many of them, at least one, from the first, and how long it has waited. messages
// is how many there are, and recipients, if they count, how many each of them has. urgent ones have their share. The error is why none may:
// that of ctx, ErrOver if over, which may be nil, was closed, or that Redis does not answer.
func (l *Limiter) Take(ctx context.Context, over <-chan struct{}, messages int, recipients []int, urgent bool) (n int, waited time.Duration, err error) {
	lane := l.lanes[0]
	if urgent {
		lane = l.lanes[1]
	}
	began := time.Now()
	if l.waiting.Load() > 0 {
		defer func() { waited = time.Since(began) }()
	}
	select {
	case lane <- struct{}{}:
	case <-over:
		return 0, 0, ErrOver
	case <-ctx.Done():
		return 0, 0, context.Cause(ctx)
	}
	defer func() { <-lane }()
	if n := l.takeSpare(messages, recipients); n > 0 {
		return n, 0, nil
	}
	for {
		a, err := l.reserve(ctx, messages, recipients, urgent)
		if err != nil {
			return 0, time.Since(began), err
		}
		if a.Wait == 0 {
			return a.Messages, waited, nil
		}
		err = l.sleep(ctx, over, min(a.Wait, askAgain))
		if waited = time.Since(began); err != nil {
			l.GiveBack(a.Messages, sum(recipients, a.Messages))
			return 0, waited, err
		}
		if a.Messages > 0 {
			return a.Messages, waited, nil
		}
	}
}

// Try is Take for who does not wait: it returns how many of the messages may go now, or none and when to ask again.
func (l *Limiter) Try(ctx context.Context, messages int) (n int, wait time.Duration, err error) {
	if n := l.takeSpare(messages, nil); n > 0 {
		return n, 0, nil
	}
	a, err := l.reserve(ctx, messages, nil, false)
	return a.Messages, a.Wait, err
}

// Waits reports whether messages wait until they may go.
func (l *Limiter) Waits() bool { return l.waiting.Load() > 0 }

func (l *Limiter) sleep(ctx context.Context, over <-chan struct{}, d time.Duration) error {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-over:
		return ErrOver
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func sum(recipients []int, n int) (all int) {
	for i := range min(n, len(recipients)) {
		all += recipients[i]
	}
	return all
}

var errNoAnswer = errors.New("ratelimit: Redis has not answered as its script does")

// reserve asks Redis once.
func (l *Limiter) reserve(ctx context.Context, messages int, recipients []int, urgent bool) (Answer, error) {
	ahead, keep, counts := time.Duration(0), 0.0, ""
	switch {
	case l.share > 0 && urgent:
		ahead = aheadUrgent
	case l.share > 0:
		keep = keptForUrgent
	}
	if l.CountsRecipients() {
		words := make([]string, len(recipients))
		for i, n := range recipients {
			words[i] = strconv.Itoa(n)
		}
		counts = strings.Join(words, " ")
	}
	accepted := 0
	if l.factor.Load() < whole && l.accepted.Swap(false) {
		accepted = 1
	}
	args := append([]any{
		window.Microseconds(), remembered.Milliseconds(), messages, counts, ahead.Microseconds(), l.share, keep,
		accepted, l.raiseWait.Microseconds(), raiseStep, l.fresh,
	}, l.limits...)
	answer, err := reserveScript.Run(ctx, l.redis, []string{l.key}, args...).Slice()
	if err != nil {
		return Answer{}, err
	}
	a, ok := readAnswer(answer)
	if !ok {
		return Answer{}, errNoAnswer
	}
	if short, _ := answer[4].(int64); short > 0 && int(short) <= len(l.limits)/5 {
		a.Short, _ = l.limits[(short-1)*5].(string)
	}
	l.hear(a)
	return a, nil
}

// staleFor is how much older than another one an answer can be that is heard later: no command takes longer. One that is older
// still is of a clock that was set back.
const staleFor = 10 * time.Second

// hear notes an answer. Of several that are under way at once the oldest may be heard last, and says no more what the factor is.
func (l *Limiter) hear(a Answer) {
	l.hearing.Lock()
	defer l.hearing.Unlock()
	if late := l.heard.Sub(a.At); late > 0 && late < staleFor {
		a.Factor = l.Factor()
	} else {
		l.heard = a.At
		l.factor.Store(int64(a.Factor*whole + 0.5))
	}
	if l.told != nil {
		l.told(a)
	}
}

func readAnswer(answer []any) (a Answer, ok bool) {
	if len(answer) != 5 {
		return a, false
	}
	granted, ok1 := answer[0].(int64)
	wait, ok2 := answer[1].(int64)
	now, ok3 := answer[2].(int64)
	text, ok4 := answer[3].(string)
	factor, err := strconv.ParseFloat(text, 64)
	a = Answer{Messages: int(granted), Wait: time.Duration(wait) * time.Microsecond, At: time.UnixMicro(now), Factor: factor}
	if granted == 0 {
		a.Wait = max(a.Wait, time.Millisecond)
	}
	return a, ok1 && ok2 && ok3 && ok4 && err == nil
}

// GiveBack says that messages were reserved for, with so many recipients, and not sent.
func (l *Limiter) GiveBack(messages, recipients int) {
	if messages <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.spare.at) > spareFor {
		l.spare = spare{}
	}
	l.spare.messages += messages
	l.spare.recipients += recipients
	l.spare.at = now
}

// takeSpare uses what was given back just now.
func (l *Limiter) takeSpare(messages int, recipients []int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.spare.at) > spareFor {
		return 0
	}
	n := min(messages, l.spare.messages)
	if l.CountsRecipients() {
		for n > 0 && sum(recipients, n) > l.spare.recipients {
			n--
		}
	}
	l.spare.messages -= n
	l.spare.recipients -= sum(recipients, n)
	return n
}

// Accepted notes that the relay has accepted mail: a rate that was lowered is raised again, a step in ten seconds.
func (l *Limiter) Accepted() {
	if l.factor.Load() < whole {
		l.accepted.Store(true)
	}
}

// Slow notes that the relay wants less: all workers have half the rate from now on, unless it was halved a few seconds ago.
func (l *Limiter) Slow(ctx context.Context) error {
	now := time.Now().UnixNano()
	if last := l.slowed.Load(); !l.Limits() || now-last < int64(l.slowPause)/2 || !l.slowed.CompareAndSwap(last, now) {
		return nil
	}
	answer, err := slowScript.Run(ctx, l.redis, []string{l.key}, remembered.Milliseconds(), l.slowPause.Microseconds(), slowest).Slice()
	if err != nil {
		return err
	}
	if len(answer) != 2 {
		return errNoAnswer
	}
	at, ok1 := answer[0].(int64)
	text, ok2 := answer[1].(string)
	factor, err := strconv.ParseFloat(text, 64)
	if !ok1 || !ok2 || err != nil {
		return errNoAnswer
	}
	l.hear(Answer{At: time.UnixMicro(at), Factor: factor})
	return nil
}

// Lowered is what part of a mailer's rate there is: below 1 if the relay wants less.
func Lowered(ctx context.Context, client redis.UniversalClient, mailer string) (factor float64, err error) {
	factor, err = client.HGet(ctx, wire.RateKey(mailer), "factor").Float64()
	if errors.Is(err, redis.Nil) {
		return 1, nil
	}
	return factor, err
}

// Place is when a message may go by the domains of its recipients.
type Place struct {
	Wait time.Duration // until then; at most AheadDomain
	Back time.Duration // if not 0: it is to be put off for so long, and has nothing reserved
}

// Domains reserves for messages by the domains of their recipients, in one round trip. Each message has the domains that it goes
// to, in any form. A message counts once for each of them, and goes when all let it.
func (l *Limiter) Domains(ctx context.Context, messages [][]string) ([]Place, error) {
	places := make([]Place, len(messages))
	if len(l.rates.Domains) == 0 {
		return places, nil
	}
	numbers, keys := map[string]int{}, []string(nil)
	args := []any{window.Microseconds(), remembered.Milliseconds(), AheadDomain.Microseconds(), MaxDelay.Microseconds()}
	var asked []int // the messages that have limits
	var lines []any
	for i, domains := range messages {
		var line []string
		for _, d := range domains {
			d = rate.CanonicalDomain(d)
			n, known := numbers[d]
			if !known {
				if limits := l.rates.Domains.Of(d); len(limits) > 0 {
					keys = append(keys, wire.RateDomainKey(l.mailer, d))
					n = len(keys)
					args = append(args, len(limits))
					for _, one := range limits {
						args = append(args, argsOf("m", one)...)
					}
				}
				numbers[d] = n
			}
			if word := strconv.Itoa(n); n > 0 && !slices.Contains(line, word) {
				line = append(line, word)
			}
		}
		if len(line) > 0 {
			asked, lines = append(asked, i), append(lines, strings.Join(line, " "))
		}
	}
	if len(asked) == 0 {
		return places, nil
	}
	answer, err := domainsScript.Run(ctx, l.redis, keys, append(args, lines...)...).Int64Slice()
	if err != nil {
		return nil, err
	}
	if len(answer) != len(asked) {
		return nil, errNoAnswer
	}
	for n, i := range asked {
		if d := time.Duration(answer[n]) * time.Microsecond; d < 0 {
			places[i].Back = max(-d, time.Second)
		} else {
			places[i].Wait = d
		}
	}
	return places, nil
}

// LeaseFor is how long what a worker has said of its connections holds.
const LeaseFor = 15 * time.Second

// Lease says how many connections a worker has open and how many it would have, or, if it is idle, would keep while nobody else wants
// them. It returns how many it may have, for LeaseFor from when it was asked.
func (l *Limiter) Lease(ctx context.Context, worker string, open, want int, idle bool) (allowed int, err error) {
	rests := 0
	if idle {
		rests = 1
	}
	answer, err := leaseScript.Run(ctx, l.redis, []string{wire.RateConnectionsKey(l.mailer)},
		worker, open, want, l.rates.Connections, LeaseFor.Milliseconds(), rests).Int64Slice()
	if err != nil {
		return 0, err
	}
	if len(answer) != 2 {
		return 0, errNoAnswer
	}
	return int(answer[0]), nil
}
