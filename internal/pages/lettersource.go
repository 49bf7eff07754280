package pages

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/mailpouch/mailpouch/tasks"
)

// letterSource is where the messages of a page about failed ones come from: the dead letters, or the retries.
type letterSource struct {
	path  string // of the page
	title string
	words letterWords
	gone  error // the error for a letter that is not there any more

	survey func(ctx context.Context, f tasks.Filter, n int) (tasks.Survey, []failedLetter, error)
	each   func(ctx context.Context, f tasks.Filter) iter.Seq2[*tasks.DeadLetter, error]
	get    func(ctx context.Context, queue, id string) (failedLetter, error)
	acts   map[string]letterAct // by the value of the button
}

// failedLetter is a dead letter, or one that is tried again.
type failedLetter struct {
	*tasks.DeadLetter
	Next time.Time // zero for a dead letter
}

// letterAct is what can be done to letters.
type letterAct struct {
	Button, Done string
	Sure         string // what is asked before it is done; "" if that is done to single letters without a question
	run          func(ctx context.Context, queue, id string) error
}

// letterWords are what a page says of its letters.
type letterWords struct {
	Lead string // what they are
	None string // that there are none
}

func deadSource(d *tasks.DeadLetters) letterSource {
	return letterSource{
		path: deadPath, title: "Dead letters", gone: tasks.ErrNotDead,
		words: letterWords{"Messages, or some of their recipients, that could not be delivered and will not be tried again by themselves.", "There are no dead letters."},
		survey: func(ctx context.Context, f tasks.Filter, n int) (tasks.Survey, []failedLetter, error) {
			s, err := d.Survey(ctx, f, n)
			list := make([]failedLetter, len(s.Newest))
			for i, l := range s.Newest {
				list[i].DeadLetter = l
			}
			return s, list, err
		},
		each: d.Each,
		get: func(_ context.Context, queue, id string) (failedLetter, error) {
			l, err := d.Get(queue, id)
			return failedLetter{DeadLetter: l}, err
		},
		acts: map[string]letterAct{
			"replay": {"Replay", "queued again", "", func(ctx context.Context, queue, id string) error {
				_, err := d.Replay(ctx, queue, id)
				return err
			}},
			"delete": {"Delete", "deleted", "That cannot be undone.", d.Delete},
		},
	}
}

func retrySource(r *tasks.Retries) letterSource {
	return letterSource{
		path: retriesPath, title: "Retries", gone: tasks.ErrNoRetry,
		words: letterWords{"Messages that have failed and will be tried again by themselves.", "No message waits for another try."},
		survey: func(ctx context.Context, f tasks.Filter, n int) (tasks.Survey, []failedLetter, error) {
			s, last, err := r.Survey(ctx, f, n)
			list := make([]failedLetter, len(last))
			for i, l := range last {
				list[i] = failedLetter{&l.DeadLetter, l.Next}
			}
			return s, list, err
		},
		each: func(ctx context.Context, f tasks.Filter) iter.Seq2[*tasks.DeadLetter, error] {
			return func(yield func(*tasks.DeadLetter, error) bool) {
				for l, err := range r.Each(ctx, f) {
					if err != nil {
						yield(nil, err)
						return
					}
					if !yield(&l.DeadLetter, nil) {
						return
					}
				}
			}
		},
		get: func(ctx context.Context, queue, id string) (failedLetter, error) {
			l, err := r.Get(ctx, queue, id)
			if err != nil {
				return failedLetter{}, err
			}
			return failedLetter{&l.DeadLetter, l.Next}, nil
		},
		acts: map[string]letterAct{
			"now":    {"Try now", "tried now", "", r.Now},
			"cancel": {"Cancel", "cancelled", "What is cancelled is not sent, and leaves no dead letter.", r.Cancel},
		},
	}
}

// isGone reports whether an error says that somebody else was faster.
func (s letterSource) isGone(err error) bool { return errors.Is(err, s.gone) }

// said is what the list says of what was done before. All of it are words of ours and numbers.
func (s letterSource) said(from url.Values) string {
	n := func(name string) int { n, _ := strconv.Atoi(from.Get(name)); return n }
	act, ok := s.acts[from.Get("did")]
	switch {
	case from.Get("none") != "":
		return "Nothing was done: no message was chosen."
	case !ok:
		return ""
	}
	text := number(n("n")) + " " + act.Done + "."
	if gone := n("gone"); gone > 0 {
		text += fmt.Sprintf(" %s were gone already: somebody else was faster.", number(gone))
	}
	if failed := n("failed"); failed > 0 {
		text += fmt.Sprintf(" %s failed: the worker's log says why.", number(failed))
	}
	return text
}
