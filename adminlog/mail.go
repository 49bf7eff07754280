package adminlog

import (
	"context"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// run sends mails, one after the other, until the Writer is closed.
func (w *Writer) run(ctx context.Context) {
	defer close(w.done)
	defer w.cancel()
	limit := bucket{interval: w.cfg.Period / time.Duration(w.cfg.Limit), burst: w.cfg.Burst}
	for w.wait(&limit) && ctx.Err() == nil {
		lines, leftOut := w.collect()
		w.settle(w.send(ctx, lines, leftOut), len(lines), leftOut)
	}
}

// wait returns true when there is a mail to send, its delay is over and the limit
// allows it; false when the Writer is closed and there is none.
func (w *Writer) wait(limit *bucket) bool {
	select {
	case <-w.due:
	case <-w.closing:
		select {
		case <-w.due:
		default:
			return false
		}
	}
	w.sleep(w.cfg.Delay)
	for {
		pause := limit.take(time.Now())
		if pause == 0 {
			return true
		}
		if !w.sleep(pause) {
			return false // the limit holds to the end
		}
	}
}

// sleep returns false at once when the Writer is closed.
func (w *Writer) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.closing:
		return false
	}
}

// collect begins a mail: from now on lines are for the next one.
func (w *Writer) collect() (lines []line, leftOut int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines, leftOut = w.lines, w.leftOut
	w.lines, w.waiting, w.sending = nil, false, true
	return lines, leftOut
}

// settle ends a mail. lines are those that it had, and leftOut how many it said were left out.
func (w *Writer) settle(sent bool, lines, leftOut int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sent {
		w.leftOut -= leftOut
	} else {
		w.leftOut += lines
	}
	w.sending = false
	w.calm = time.Now().Add(w.cfg.Delay)
}

// send makes and sends one mail. A panic of the Mailer or of Redact counts as a mail that
// was not sent, because logging must not end the program.
func (w *Writer) send(ctx context.Context, lines []line, leftOut int) (sent bool) {
	defer func() {
		if recover() != nil {
			sent = false
		}
	}()
	r := report{redact: w.cfg.Redact}
	subject, body := r.mail(lines, leftOut)
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	n, err := w.cfg.Mailer.MailAdmins(ctx, subject, body, &mailer.SendOptions{FailSilently: true})
	return n > 0 && err == nil
}

// bucket holds tokens: burst at most, and one more after each interval.
type bucket struct {
	interval time.Duration
	burst    int
	full     time.Time // when it is full again
}

// take takes a token and returns 0, or how long there will be none.
func (b *bucket) take(now time.Time) (pause time.Duration) {
	full := b.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(b.interval)
	if missing := full.Sub(now) - time.Duration(b.burst)*b.interval; missing > 0 {
		return missing
	}
	b.full = full
	return 0
}
