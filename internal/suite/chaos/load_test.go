package chaos

import (
	"context"
	"maps"
	"sync"
	"time"
)

// lot is messages that are handed over at once.
type lot struct {
	at      time.Duration // from the beginning
	numbers []int
}

// singles are the messages that are handed over one by one, which are the first by number.
func (p plan) singles() []lot {
	all := make([]lot, p.mails-p.together)
	for n := range all {
		all[n] = lot{p.span * time.Duration(n) / time.Duration(len(all)), []int{n}}
	}
	return all
}

// lots are the others.
func (p plan) lots() []lot {
	var all []lot
	for i, at := range p.lotTimes() {
		from := p.mails - p.together + i*p.lot
		all = append(all, lot{at, sequence(from, min(from+p.lot, p.mails))})
	}
	return all
}

// lotTimes are the times at which lots are handed over.
func (p plan) lotTimes() []time.Duration {
	if p.together == 0 {
		return nil
	}
	times := make([]time.Duration, (p.together+p.lot-1)/p.lot)
	for i := range times {
		times[i] = p.span * time.Duration(2*i+1) / time.Duration(2*len(times))
	}
	return times
}

// sequence is the numbers from a to b-1.
func sequence(a, b int) []int {
	var numbers []int
	for n := a; n < b; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

// load is the producers' side. It hands a single message over until it is accepted, which
// its key makes safe. A lot has no keys: what Redis has not answered for may be queued or not,
// so it is left as it is, and other messages are handed over in its place.
type load struct {
	stack *stack
	plan  plan

	mu         sync.Mutex
	tasks      map[int]string // what was accepted, and as which task
	again      int            // single hand-overs that had to be repeated
	unanswered map[int]bool   // messages of lots of which nobody knows whether Redis has them
	spare      int            // the number of the next message that takes another one's place
}

func newLoad(s *stack, p plan) *load {
	return &load{stack: s, plan: p, tasks: map[int]string{}, unanswered: map[int]bool{}, spare: p.mails}
}

// inLot says whether the message with a number is handed over together with others.
func (l *load) inLot(number int) bool { return number >= l.plan.mails-l.plan.together }

// run hands all messages over, each as soon as it is due. Lots have a producer to themselves.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	wg.Go(func() { l.produce(ctx, start, l.plan.lots(), 1) })
	wg.Go(func() { l.produce(ctx, start, l.plan.singles(), l.plan.producers) })
}

func (l *load) produce(ctx context.Context, start time.Time, all []lot, producers int) {
	due := make(chan lot)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(due)
	for range producers {
		wg.Go(func() {
			for lot := range due {
				l.handOver(ctx, lot.numbers)
			}
		})
	}
	for _, lot := range all {
		if !until(ctx, start.Add(lot.at)) {
			return
		}
		select {
		case due <- lot:
		case <-ctx.Done():
			return
		}
	}
}

func (l *load) handOver(ctx context.Context, numbers []int) {
	for {
		if l.inLot(numbers[0]) {
			numbers = l.handOverLot(ctx, numbers)
		} else {
			numbers = l.handOverOne(ctx, numbers[0])
		}
		if len(numbers) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// handOverOne returns what is still to be handed over.
func (l *load) handOverOne(ctx context.Context, number int) []int {
	task, err := l.stack.enqueue(ctx, number)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.again++
		return []int{number}
	}
	l.tasks[number] = task
	return nil
}

// handOverLot returns the messages that are to take the place of those without an answer.
func (l *load) handOverLot(ctx context.Context, numbers []int) (others []int) {
	tasks, errs := l.stack.enqueueAll(ctx, numbers)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, number := range numbers {
		if errs[i] == nil {
			l.tasks[number] = tasks[i]
			continue
		}
		l.unanswered[number] = true
		others = append(others, l.spare)
		l.spare++
	}
	return others
}

// accepted returns what was accepted: tasks by the number of the message.
func (l *load) accepted() map[int]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.tasks)
}
