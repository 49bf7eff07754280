package main

import (
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

// last is the number of the last line, and 0 if there is none.
func (c *chunk) last() int {
	if len(c.lines) == 0 {
		return 0
	}
	return c.lines[len(c.lines)-1].n
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

// chunker cuts an input into chunks. Lines are not copied but share the blocks that are read.
type chunker struct {
	in   io.Reader
	most int   // lines of a chunk
	keys *keys // nil: lines have none
	skip int   // so many lines are left out

	line  int    // lines cut, blank ones too
	index int    // chunks made
	rest  []byte // was read, and is in no chunk yet
	seen  int    // bytes of rest that have no line's end
	err   error  // of the input, behind rest
}

func newChunker(r io.Reader, most int, keys *keys) *chunker {
	return &chunker{in: r, most: most, keys: keys}
}

// next returns the lines that have arrived. It does not wait until a chunk is full, because
// the rest may take long to come through a pipe. At the end of the input the error is
// io.EOF, and the chunk may still have lines.
func (c *chunker) next() (chunk, error) {
	next := chunk{index: c.index}
	c.index++
	for {
		for text := c.cut(); text != nil; text = c.cut() {
			if c.add(&next, text); len(next.lines) == c.most || next.size >= chunkBytes {
				return next, nil
			}
		}
		switch {
		case c.err != nil:
			return next, c.err
		case len(next.lines) > 0:
			return next, nil
		}
		c.read()
	}
}

// cut cuts a line off, with its end. It is nil if no whole one is there.
func (c *chunker) cut() []byte {
	end := len(c.rest)
	if i := bytes.IndexByte(c.rest[c.seen:], '\n'); i >= 0 {
		end = c.seen + i + 1
	} else if c.seen = end; end == 0 || !errors.Is(c.err, io.EOF) {
		return nil
	}
	text := c.rest[:end:end]
	c.rest, c.seen = c.rest[end:], 0
	return text
}

// add adds a line to a chunk, unless it is blank.
func (c *chunker) add(to *chunk, text []byte) {
	c.line++
	if len(bytes.TrimSpace(text)) == 0 {
		return
	}
	if line := (numbered{n: c.line, text: text, key: c.keys.of(text)}); c.line > c.skip {
		to.size += len(text)
		to.lines = append(to.lines, line)
	}
}

// read reads as much as has arrived.
func (c *chunker) read() {
	const least = 64 << 10 // bytes that are worth a read
	if cap(c.rest)-len(c.rest) < least {
		c.rest = append(make([]byte, 0, max(chunkBytes, 2*len(c.rest))), c.rest...)
	}
	n, err := c.in.Read(c.rest[len(c.rest):cap(c.rest)])
	c.rest = c.rest[:len(c.rest)+n]
	if c.err = err; err != nil && !errors.Is(err, io.EOF) {
		c.err = fmt.Errorf("line %d: %w", c.line+1, err)
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
