package catcher

import (
	"net"
	"sync"
)

// listener counts connections and can close all of them. The lock guards what is
// below it.
type listener struct {
	net.Listener
	store *store

	mu     sync.Mutex
	closed bool
	open   map[*conn]struct{}
}

// conn is a connection that knows its number.
type conn struct {
	net.Conn
	number   int
	listener *listener
	once     sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	counted := &conn{Conn: c, number: l.store.connect(), listener: l}
	l.open[counted] = struct{}{}
	return counted, nil
}

func (l *listener) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.Listener.Close()
	l.drop()
	return err
}

func (l *listener) drop() {
	l.mu.Lock()
	open := make([]*conn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}

func (c *conn) Close() error {
	c.once.Do(func() {
		c.listener.mu.Lock()
		delete(c.listener.open, c)
		c.listener.mu.Unlock()
		c.listener.store.disconnect()
	})
	return c.Conn.Close()
}
