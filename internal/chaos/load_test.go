package chaos

import (
	"context"
	"maps"
	"sync"
	"time"
)

// load is the producers' side: it hands the messages over, evenly over the plan's
// time, and tries each one until it is accepted.
type load struct {
	stack *stack

	mu    sync.Mutex
	tasks map[int]string // what was accepted, and as which task
	again int            // hand-overs that had to be repeated
}

// run hands over the messages 0 to n-1.
func (l *load) run(ctx context.Context, n, producers int, span time.Duration) {
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range producers {
		wg.Go(func() {
			for number := range numbers {
				l.handOver(ctx, number)
			}
		})
	}
	defer wg.Wait()
	defer close(numbers)
	start := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for next := 0; next < n; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		due := min(n, int(float64(n)*float64(time.Since(start))/float64(span))+1)
		for ; next < due; next++ {
			select {
			case numbers <- next:
			case <-ctx.Done():
				return
			}
		}
	}
}

func (l *load) handOver(ctx context.Context, number int) {
	for {
		task, err := l.stack.enqueue(ctx, number)
		if err == nil {
			l.mu.Lock()
			l.tasks[number] = task
			l.mu.Unlock()
			return
		}
		l.mu.Lock()
		l.again++
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// accepted returns what was accepted: tasks by the number of the message.
func (l *load) accepted() map[int]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.tasks)
}
