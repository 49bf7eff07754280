package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/mailpouch/mailpouch/tasks"
)

// numbered is a line of the input that is not blank.
type numbered struct {
	n    int // from 1
	text []byte
	key  string // its idempotency key, if the run can be resumed
	id   string // of its message, once that is queued
}

// chunk is a number of lines that one goroutine works on.
type chunk struct {
	index int // from 0
	lines []numbered
	size  int     // of their text
	errs  []error // when it is done: one for each line

	prepared []prepared // instead of the text of the lines, if they are ready to be queued
}

// prepared is lines with the same options that are ready to be queued.
type prepared struct {
	messages *tasks.Prepared
	indexes  []int // of the lines in their chunk
}

// chunkBytes bounds the text of a chunk, but for its last line.
const chunkBytes = 1 << 20

// maxInFlight bounds the text of all chunks that are worked on: lines may have attachments.
const maxInFlight = 64 << 20

// budget is memory, in bytes, that several goroutines share.
type budget struct {
	mu    sync.Mutex
	freed *sync.Cond // when more is left
	all   int
	left  int // guarded by mu
}

func newBudget(size int) *budget {
	b := &budget{all: size, left: size}
	b.freed = sync.NewCond(&b.mu)
	return b
}

// acquire waits until n bytes are left. Whoever asks for more than there are gets all of them.
func (b *budget) acquire(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.left < min(n, b.all) {
		b.freed.Wait()
	}
	b.left -= n
}

func (b *budget) release(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
	b.freed.Broadcast()
}

// chunker cuts an input into chunks.
type chunker struct {
	in   *bufio.Reader
	most int   // lines of a chunk
	keys *keys // nil: lines have none
	skip int   // so many lines are left out

	line  int // lines read, blank ones too
	index int // chunks made
}

func newChunker(r io.Reader, most int, keys *keys) *chunker {
	return &chunker{in: bufio.NewReaderSize(r, chunkBytes), most: most, keys: keys}
}

// next returns the lines that have arrived. It does not wait until a chunk is full, because
// the rest may take long to come through a pipe. At the end of the input the error is
// io.EOF, and the chunk may still have lines.
func (c *chunker) next() (chunk, error) {
	next := chunk{index: c.index}
	c.index++
	for {
		text, err := c.in.ReadBytes('\n')
		c.line++
		if len(bytes.TrimSpace(text)) > 0 {
			if line := (numbered{n: c.line, text: text, key: c.keys.of(text)}); c.line > c.skip {
				next.size += len(text)
				next.lines = append(next.lines, line)
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			err = fmt.Errorf("line %d: %w", c.line, err)
		}
		full := len(next.lines) == c.most || next.size >= chunkBytes || c.in.Buffered() == 0
		if err != nil || len(next.lines) > 0 && full {
			return next, err
		}
	}
}

// keys makes the idempotency keys of a run that can be resumed. A line's key is made of the
// run's name, the line's text and how often the same line came before it. So a file may be
// corrected, extended or sorted between two runs: an unchanged line keeps its key, and a
// changed or new one gets another.
type keys struct {
	run  string
	seen map[[15]byte]int
}

func newKeys(run string) *keys {
	if run == "" {
		return nil
	}
	return &keys{run: run, seen: map[[15]byte]int{}}
}

// of returns the next line's key, or "" if k is nil.
func (k *keys) of(line []byte) string {
	if k == nil {
		return ""
	}
	sum := sha256.Sum256(bytes.TrimSpace(line))
	hash := [15]byte(sum[:])
	k.seen[hash]++
	return fmt.Sprintf("%s:%s:%d", k.run, strings.ToLower(base32.StdEncoding.EncodeToString(hash[:])), k.seen[hash])
}

// eachChunk runs work on the chunks in several goroutines, and calls done with each chunk
// in the order of the input:
//
//	reader ──chunks──> workers ──finished──> inOrder ──> done
//
// next returns the chunks, and io.EOF with the last one. work does one, and returns an error for each line. eachChunk ends at the end of the input, at an
// error of the reader or of done, or when ctx ends. It waits for the chunks that are being
// worked on.
func eachChunk(ctx context.Context, next func() (chunk, error), goroutines int, work func(context.Context, *chunk) []error, done func(chunk) error) error {
	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	todo, finished := make(chan chunk), make(chan chunk)
	memory := newBudget(maxInFlight)
	// Nobody waits for the reader: it may be waiting for a terminal or a pipe, which
	// cannot be interrupted, until the process ends.
	go func() {
		defer close(todo)
		for {
			c, err := next()
			memory.acquire(c.size)
			select {
			case todo <- c:
			case <-reading.Done():
				return
			}
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				stop(err)
				return
			}
		}
	}()
	var workers sync.WaitGroup
	for range goroutines {
		workers.Go(func() {
			for {
				select {
				case c, ok := <-todo:
					if !ok {
						return
					}
					size := c.size
					c.errs = work(ctx, &c)
					memory.release(size)
					finished <- c
				case <-reading.Done():
					return
				}
			}
		})
	}
	go func() {
		workers.Wait()
		close(finished)
	}()
	inOrder(finished, done, stop)
	return context.Cause(reading)
}

// inOrder calls done with the chunks in their order.
func inOrder(finished <-chan chunk, done func(chunk) error, stop context.CancelCauseFunc) {
	early := map[int]chunk{}
	for next := 0; ; {
		c, ok := <-finished
		if !ok {
			return
		}
		early[c.index] = c
		for {
			c, ok := early[next]
			if !ok {
				break
			}
			delete(early, next)
			next++
			if err := done(c); err != nil {
				stop(err)
			}
		}
	}
}
