// Package filebased is a backend that writes mail to files, for a developer to read
// when there is time. Each time it is opened it starts a new file in its directory,
// such as 20260102-150405-123456-9876543.log, which no other process writes to. In it
// each message is followed by a line of 79 dashes, as Django's file backend does. Bcc
// is not shown, because it is in no message. It is not meant for production.
package filebased

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/mailpouch/mailpouch/internal/transcript"
	"github.com/mailpouch/mailpouch/mailer"
)

// Config configures a Backend. Dir is required.
type Config struct {
	Dir      string          // where the files go; created with its parents if it is missing
	Defaults mailer.Defaults // what a message may leave out
}

// Backend writes messages to files in a directory.
type Backend struct {
	cfg  Config
	file file // nil if not open
	size int64
}

var (
	_ mailer.Backend     = (*Backend)(nil)
	_ mailer.BatchSender = (*Backend)(nil)
)

// file is what a Backend wants of an *os.File.
type file interface {
	io.WriteSeeker
	io.Closer
	Truncate(size int64) error
}

// New creates the directory if it is missing and makes sure that files can be
// created in it. An error names the directory and wraps an *fs.PathError.
func New(cfg Config) (*Backend, error) {
	if cfg.Dir == "" {
		return nil, errors.New("filebased: Config.Dir is required")
	}
	dir, err := filepath.Abs(cfg.Dir) // the program may change its working directory
	if err != nil {
		return nil, fmt.Errorf("filebased: directory %s: %w", cfg.Dir, err)
	}
	cfg.Dir = dir
	if err := prepare(dir); err != nil {
		return nil, fmt.Errorf("filebased: directory %s: %w", dir, err)
	}
	return &Backend{cfg: cfg}, nil
}

// prepare tries whether files can be created, as permission bits do not tell of
// access lists, read-only file systems or quotas.
func prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil { // mail is nobody else's business
		return err
	}
	f, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Open starts a new file, readable by its owner alone, unless one is open.
func (b *Backend) Open(ctx context.Context) (opened bool, err error) {
	if b.file != nil {
		return false, nil
	}
	if err := mailer.ContextErr(ctx); err != nil {
		return false, err
	}
	// CreateTemp opens with O_EXCL and mode 0600. The microseconds keep the files of
	// one second in order.
	now := time.Now()
	name := fmt.Sprintf("%s-%06d-*.log", now.Format("20060102-150405"), now.Nanosecond()/1000)
	f, err := os.CreateTemp(b.cfg.Dir, name)
	if err != nil {
		return false, unavailable(mailer.StepConnect, err)
	}
	b.file, b.size = f, 0
	return true, nil
}

// Close ends the file. The next Open starts another one.
func (b *Backend) Close() error {
	if b.file == nil {
		return nil
	}
	err := b.file.Close()
	b.file = nil
	if err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("filebased: %w", err)
	}
	return nil
}

// SendMessages writes the messages. A message that cannot be rendered is left out.
func (b *Backend) SendMessages(ctx context.Context, messages []*mailer.EmailMessage) (sent int, err error) {
	return mailer.Collect(ctx, b, messages)
}

// SendBatch is SendMessages with each message reported when it has been written. It
// starts a file at the first message that may be written.
func (b *Backend) SendBatch(ctx context.Context, batch mailer.Batch) {
	mailer.Deliver(ctx, b, batch, b.cfg.Defaults, func(m *mailer.EmailMessage, _ mailer.Envelope) mailer.Result {
		entry, err := transcript.Entry(m)
		if err != nil {
			return mailer.Result{Err: err}
		}
		return mailer.Result{Err: b.write(entry)}
	})
}

// write adds a message to the file, whole or not at all: what was written of it
// before the disk was full is taken back. If that fails too the file is given up.
func (b *Backend) write(entry []byte) error {
	_, err := b.file.Write(entry)
	if err == nil {
		b.size += int64(len(entry))
		return nil
	}
	if b.rewind() != nil {
		_ = b.Close() // err says what is wrong
	}
	return unavailable(mailer.StepBody, err)
}

func (b *Backend) rewind() error {
	if err := b.file.Truncate(b.size); err != nil {
		return err
	}
	_, err := b.file.Seek(b.size, io.SeekStart)
	return err
}

// unavailable is the error of a disk that takes no mail: no fault of the message.
func unavailable(step mailer.Step, err error) error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: fmt.Errorf("filebased: %w", err)}
}
