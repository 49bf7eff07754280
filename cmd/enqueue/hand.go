package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/mailpouch/mailpouch/internal/cli"
	"github.com/mailpouch/mailpouch/mailer"
)

// check looks at lines as handing them over would.
func (b *bulk) check(ctx context.Context, lines []numbered) []error {
	errs := make([]error, len(lines))
	for i, l := range lines {
		if errs[i] = ctx.Err(); errs[i] == nil {
			errs[i] = b.checkLine(l)
		}
	}
	return errs
}

func (b *bulk) checkLine(l numbered) error {
	e, err := b.parse(l)
	if err != nil {
		return err
	}
	m := e.message.WithDefaults(b.app.defaults)
	if err := b.app.pouch.Queue.CheckSize(m); err != nil {
		return err
	}
	return m.Validate()
}

// parse reads a line. What is wrong with the message itself, the queue finds.
func (b *bulk) parse(l numbered) (entry, error) {
	e, err := parseEntry(l.text, b.base)
	if err != nil {
		return e, err
	}
	if l.key != "" && e.queue.IdempotencyKey == "" && e.queue.Unique == 0 {
		e.queue.IdempotencyKey = l.key
	}
	if _, err := b.app.pouch.Queue.Using(e.queue.Using); err != nil {
		return e, cli.Exit(cli.ExitData, err)
	}
	if len(e.message.Recipients()) == 0 {
		return e, cli.Exitf(cli.ExitData, "to: nobody to send to")
	}
	return e, nil
}

// group is lines of a chunk that go to the queue together.
type group struct {
	entry    entry // the first one, whose options they all have
	messages []*mailer.EmailMessage
	indexes  []int // in the chunk
}

// handOver queues lines: those with the same options together. After the first one that
// cannot be queued though it is right, the rest is not tried.
func (b *bulk) handOver(ctx context.Context, lines []numbered) []error {
	errs := make([]error, len(lines))
	var groups []*group
	byOptions := map[string]*group{}
	for i, l := range lines {
		e, err := b.parse(l)
		if errs[i] = err; err != nil {
			continue
		}
		id := e.own + "\n" + e.queue.IdempotencyKey
		g := byOptions[id]
		if g == nil {
			g = &group{entry: e}
			byOptions[id] = g
			groups = append(groups, g)
		}
		g.messages, g.indexes = append(g.messages, e.message), append(g.indexes, i)
	}
	var down error
	for _, g := range groups {
		err := down
		if err == nil {
			_, err = b.app.queue(g.entry.queue).SendMessages(ctx, g.messages)
		}
		for n, i := range g.indexes {
			_, errs[i] = handedOver("", mailer.ErrorAt(err, n))
			if errs[i] != nil && !isBadLine(errs[i]) {
				down = errs[i]
			}
		}
	}
	return errs
}

// ranges are numbers that are added in rising order.
type ranges [][2]int

func (r *ranges) add(from, to int) {
	if last := len(*r) - 1; last >= 0 && (*r)[last][1]+1 >= from {
		(*r)[last][1] = max(to, (*r)[last][1])
		return
	}
	*r = append(*r, [2]int{from, to})
}

func (r *ranges) String() string {
	texts := make([]string, len(*r))
	for i, span := range *r {
		texts[i] = fmt.Sprint(span[0])
		if span[1] > span[0] {
			texts[i] = fmt.Sprintf("%d-%d", span[0], span[1])
		}
	}
	return strings.Join(texts, ", ")
}
