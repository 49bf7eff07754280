// Package adminlog mails the errors that a program logs through zerolog to its admins,
// as Django's AdminEmailHandler does. A [Writer] stands beside the log's own:
//
//	admins, err := adminlog.New(adminlog.Config{Mailer: mail})
//	...
//	defer admins.Close()
//	log := zerolog.New(zerolog.MultiLevelWriter(os.Stderr, admins))
//
// What the program logs is what is mailed, all fields of it, in clear text and to
// wherever ADMINS are: see Config.Redact.
//
// # The program comes first
//
// Logging never waits for mail, and never fails or panics because of it. Mail that cannot
// be sent is dropped.
//
// # How much mail there is
//
// One problem often logs several lines. So a line waits a moment (Config.Delay) for
// others, and they go in one mail. An hour has at most Config.Limit mails; beyond that,
// lines wait for the next mail that is allowed. Lines that did not fit into a mail, and
// those of a mail that could not be sent, are counted, and the next mail says how many.
//
// # No loops
//
// Sending a mail may itself log an error, for example that the relay is down, in this
// goroutine or another. So a line that is logged while a mail is being sent, or within
// a Delay after it, causes no mail. It goes into the next mail that another line causes.
// A fatal line is always mailed, because nothing can follow it. So a relay that is down
// makes no more mail than one that is up.
//
// One case is left to the program. If Mailer hands its mail to a queue, the worker of
// that queue must not log through a Writer that uses the queue. Minutes later it may log
// that an admin mail could not be delivered, and that line looks like any other error.
// Give the worker a logger of its own.
package adminlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/mailer"
)

// Mailer sends mail to the admins. A *mailer.Mailer does.
type Mailer interface {
	MailAdmins(ctx context.Context, subject, message string, opts *mailer.SendOptions) (int, error)
}

// Config configures a Writer. Mailer is required; the rest defaults as written if it is
// zero, and must not be negative.
type Config struct {
	// Mailer is called from one goroutine, with FailSilently.
	Mailer Mailer

	// Level is the least important level that is mailed: zerolog.ErrorLevel if zero.
	// Zero is zerolog's debug level, which like the trace level is not for mail.
	Level zerolog.Level

	// Limit mails are sent in each Period: 10 in an hour. After a quiet time Burst of
	// them may follow each other at once: 5. So no Period has more than Limit + Burst.
	Limit  int
	Period time.Duration
	Burst  int

	// Delay is how long a line waits for others that belong to it: 1 s. For as long
	// after a mail, a line counts as caused by the sending of that mail.
	Delay time.Duration

	// MaxLines is how many lines wait for one mail, and stand in it: 50.
	MaxLines int

	// Timeout is how long sending one mail may take: 30 s. CloseTimeout is how long
	// Close may take: 10 s.
	Timeout      time.Duration
	CloseTimeout time.Duration

	// Redact, if not nil, reports whether the value of a field must not be mailed. It is
	// called for the fields within fields too, from one goroutine. It cannot find
	// secrets in the text of a message or of an error.
	Redact func(key string) bool
}

// complete returns c with its defaults filled in, or says what is wrong with it.
func (c Config) complete() (Config, error) {
	if c.Mailer == nil {
		return c, errors.New("adminlog: Config.Mailer is required")
	}
	c.Level = cmp.Or(c.Level, zerolog.ErrorLevel)
	if c.Level < zerolog.InfoLevel || c.Level > zerolog.PanicLevel {
		return c, fmt.Errorf("adminlog: Config.Level: %q is not a level to mail", c.Level)
	}
	c.Limit = cmp.Or(c.Limit, 10)
	c.Period = cmp.Or(c.Period, time.Hour)
	c.Burst = cmp.Or(c.Burst, 5)
	c.Delay = cmp.Or(c.Delay, time.Second)
	c.MaxLines = cmp.Or(c.MaxLines, 50)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, 10*time.Second)
	if c.Limit < 0 || c.Period < 0 || c.Burst < 0 || c.Delay < 0 || c.MaxLines < 0 || c.Timeout < 0 || c.CloseTimeout < 0 {
		return c, errors.New("adminlog: Config: no number and no duration can be negative")
	}
	return c, nil
}

// Writer takes the lines of a log and mails the important ones. It may be used by
// several goroutines.
type Writer struct {
	cfg     Config
	due     chan struct{} // has one entry when waiting has become true
	closing chan struct{} // closed by Close
	done    chan struct{} // closed when the goroutine has ended
	cancel  context.CancelFunc

	mu      sync.Mutex // guards what follows; not held while a mail is made or sent
	lines   []line     // for the next mail, MaxLines at most
	waiting bool       // one of them causes a mail
	leftOut int        // lines that are in no mail
	sending bool
	calm    time.Time // from then on a line was not caused by sending the last mail
	closed  bool
}

var (
	_ zerolog.LevelWriter = (*Writer)(nil)
	_ io.Closer           = (*Writer)(nil)
	_ Mailer              = (*mailer.Mailer)(nil)
)

// New returns a Writer and starts its goroutine, which Close ends.
func New(cfg Config) (*Writer, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Writer{
		cfg:     cfg,
		due:     make(chan struct{}, 1),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		cancel:  cancel,
	}
	go w.run(ctx)
	return w, nil
}

// WriteLevel takes a line of the log. It never waits, and its error is always nil.
func (w *Writer) WriteLevel(level zerolog.Level, p []byte) (int, error) {
	if level >= w.cfg.Level && level != zerolog.NoLevel && level != zerolog.Disabled {
		w.take(level, p)
	}
	return len(p), nil
}

// Write is WriteLevel with the level that the line itself gives. A line without one is
// not mailed.
func (w *Writer) Write(p []byte) (int, error) { return w.WriteLevel(levelOf(p), p) }

func (w *Writer) take(level zerolog.Level, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	ours := level != zerolog.FatalLevel && (w.sending || time.Now().Before(w.calm))
	w.keep(newLine(level, p, ours))
	if !ours && !w.waiting {
		w.waiting = true
		w.due <- struct{}{} // has room: the goroutine takes it before waiting is reset
	}
}

// keep adds a line to those for the next mail. If there are too many, one is left out: the
// last of the less important ones, or else the new one. So the line that causes a mail
// is left out only for a more important one.
func (w *Writer) keep(l line) {
	if len(w.lines) == w.cfg.MaxLines {
		w.leftOut++
		i := len(w.lines) - 1
		for i >= 0 && !w.lines[i].less(l) {
			i--
		}
		if i < 0 {
			return
		}
		w.lines = slices.Delete(w.lines, i, i+1)
	}
	w.lines = append(w.lines, l)
}

// Close mails what waits to be mailed, if the limit allows another mail, and ends the
// goroutine. Lines that come later are dropped. It returns an error if CloseTimeout was
// over and the mail on its way was cancelled. zerolog closes its writers before a fatal
// line ends the program.
func (w *Writer) Close() error {
	w.stop()
	timeout := time.NewTimer(w.cfg.CloseTimeout)
	defer timeout.Stop()
	select {
	case <-w.done:
		return nil
	case <-timeout.C:
		w.cancel()
		return fmt.Errorf("adminlog: close: a mail is still on its way after %v", w.cfg.CloseTimeout)
	}
}

func (w *Writer) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		close(w.closing)
	}
}
