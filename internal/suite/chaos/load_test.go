package chaos

import (
	"context"
	"maps"
	"sync"
	"time"
)

// handover is messages that are handed over at once.
type handover struct {
	at      time.Duration // from the beginning
	numbers []int
}

// singles are the messages that are handed over one by one, which are the first by number.
func (p plan) singles() []handover {
	all := make([]handover, p.mails-p.together)
	for n := range all {
		all[n] = handover{p.span * time.Duration(n) / time.Duration(len(all)), []int{n}}
	}
	return all
}

// bulks are the others, handed over together.
func (p plan) bulks() []handover {
	var all []handover
	for i, at := range p.bulkTimes() {
		from := p.mails - p.together + i*p.bulkSize
		all = append(all, handover{at, sequence(from, min(from+p.bulkSize, p.mails))})
	}
	return all
}

// bulkTimes are the times at which bulk mail is handed over.
func (p plan) bulkTimes() []time.Duration {
	if p.together == 0 {
		return nil
	}
	times := make([]time.Duration, (p.together+p.bulkSize-1)/p.bulkSize)
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
// its key makes safe. Bulk mail has no keys: what Redis has not answered for may be queued or not,
// so it is left as it is, and other messages are handed over in its place.
type load struct {
	stack *stack
	plan  plan

	mu         sync.Mutex
	tasks      map[int]string // what was accepted, and as which task
	again      int            // single hand-overs that had to be repeated
	unanswered map[int]bool   // messages handed over in bulk of which nobody knows whether Redis has them
	spare      int            // the number of the next message that takes another one's place
}

func newLoad(s *stack, p plan) *load {
	return &load{stack: s, plan: p, tasks: map[int]string{}, unanswered: map[int]bool{}, spare: p.mails}
}

// inBulk reports whether the message with a number is handed over together with others.
func (l *load) inBulk(number int) bool { return number >= l.plan.mails-l.plan.together }

// run hands all messages over, each as soon as it is due. Bulk mail has a producer to themselves.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	start := time.Now()
	wg.Go(func() { l.produce(ctx, start, l.plan.bulks(), 1) })
	wg.Go(func() { l.produce(ctx, start, l.plan.singles(), l.plan.producers) })
}

func (l *load) produce(ctx context.Context, start time.Time, all []handover, producers int) {
	due := make(chan handover)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(due)
	for range producers {
		wg.Go(func() {
			for h := range due {
				l.handOver(ctx, h.numbers)
			}
		})
	}
	for _, h := range all {
		if !until(ctx, start.Add(h.at)) {
			return
		}
		select {
		case due <- h:
		case <-ctx.Done():
			return
		}
	}
}

func (l *load) handOver(ctx context.Context, numbers []int) {
	for {
		if l.inBulk(numbers[0]) {
			numbers = l.handOverBulk(ctx, numbers)
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

// handOverBulk returns the messages that are to take the place of those without an answer.
func (l *load) handOverBulk(ctx context.Context, numbers []int) (others []int) {
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
