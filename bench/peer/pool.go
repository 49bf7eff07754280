package main

import (
	"context"
	"io"
)

// pool is connections that stay open. There may be more tasks at once than connections:
// some of them wait then.
type pool[C io.Closer] struct {
	idle chan *C // nil is one that is not open
}

func newPool[C io.Closer](size int) pool[C] {
	p := pool[C]{idle: make(chan *C, size)}
	for range size {
		p.idle <- nil
	}
	return p
}

// use does something with a connection. One that failed is not used again.
func (p pool[C]) use(ctx context.Context, open func() (C, error), do func(C) error) error {
	var c *C
	select {
	case c = <-p.idle:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c == nil {
		opened, err := open()
		if err != nil {
			p.idle <- nil
			return err
		}
		c = &opened
	}
	if err := do(*c); err != nil {
		_ = (*c).Close()
		p.idle <- nil
		return err
	}
	p.idle <- c
	return nil
}
