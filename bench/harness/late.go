package harness

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// newLateWriter returns a writer that has to be ended.
func newLateWriter(to net.Conn, delay time.Duration) *lateWriter {
	w := &lateWriter{to: to, delay: delay, way: make(chan parcel, 4096)}
	w.writing.Go(w.run)
	return w
}

// lateWriter writes everything after a delay, however much is on the way.
type lateWriter struct {
	to      net.Conn
	delay   time.Duration
	way     chan parcel
	writing sync.WaitGroup
}

type parcel struct {
	due  time.Time
	data []byte
}

func (w *lateWriter) Write(p []byte) (int, error) {
	w.way <- parcel{time.Now().Add(w.delay), bytes.Clone(p)}
	return len(p), nil
}

func (w *lateWriter) run() {
	for p := range w.way {
		time.Sleep(time.Until(p.due))
		_, _ = w.to.Write(p.data) // if the client is gone, the reader of its commands sees it
	}
}

// end waits until all is written.
func (w *lateWriter) end() {
	close(w.way)
	w.writing.Wait()
}
