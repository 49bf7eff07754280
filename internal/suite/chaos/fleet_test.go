package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fleet runs a number of workers, and replaces each that ends.
type fleet struct {
	t       *testing.T
	stack   *stack
	logs    string // directory of the workers' logs
	patient time.Duration

	mu      sync.Mutex
	slots   []*worker
	started int
	fates   map[string]string // how each worker ended, by its name
	crashed int               // workers that ended by themselves
	killed  []killed
	termed  int
	ending  bool
	procs   sync.WaitGroup
}

// worker is one process.
type worker struct {
	name string
	slot int
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	told bool          // it was asked to end, or killed
}

// killed is a worker that was ended with SIGKILL.
type killed struct {
	name string
	at   time.Time
}

// sigkilled is the fate of a worker that was killed.
const sigkilled = "signal: killed"

// startFleet starts n workers. A worker may take as long as patient to stop.
func startFleet(t *testing.T, s *stack, n int, logs string, patient time.Duration) *fleet {
	t.Helper()
	f := &fleet{t: t, stack: s, logs: logs, patient: patient, slots: make([]*worker, n), fates: map[string]string{}}
	t.Cleanup(f.clear)
	for slot := range n {
		f.start(slot)
	}
	return f
}

// start puts a new worker into a slot.
func (f *fleet) start(slot int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		return
	}
	f.started++
	w := &worker{name: fmt.Sprintf("w%d.example.com", f.started), slot: slot, gone: make(chan struct{})}
	w.cmd = f.stack.command(w.name)
	log, err := os.Create(filepath.Join(f.logs, w.name+".log"))
	if err != nil {
		f.t.Error(err)
		return
	}
	w.cmd.Stdout, w.cmd.Stderr = log, log
	dieWithUs(w.cmd)
	if err := w.cmd.Start(); err != nil {
		f.t.Error(err)
		return
	}
	f.slots[slot] = w
	f.procs.Go(func() { f.watch(w, log) })
}

// watch waits for a worker's end, and replaces one that ended by itself: what runs
// services does that too, after a moment.
func (f *fleet) watch(w *worker, log *os.File) {
	_ = w.cmd.Wait() // how it ended is in its state
	_ = log.Close()
	f.mu.Lock()
	f.fates[w.name] = w.cmd.ProcessState.String()
	alone := !w.told && !f.ending
	if alone {
		w.told = true // whatever comes next comes too late for it
		f.crashed++
	}
	f.mu.Unlock()
	close(w.gone)
	if alone {
		<-time.After(500 * time.Millisecond)
		f.start(w.slot)
	}
}

// kill ends the worker of a slot with SIGKILL and replaces it.
func (f *fleet) kill(slot int) {
	w := f.take(slot)
	if w == nil {
		return
	}
	f.mu.Lock()
	f.killed = append(f.killed, killed{w.name, time.Now()})
	f.mu.Unlock()
	_ = w.cmd.Process.Kill()
	f.start(slot)
}

// term replaces the worker of a slot as a rolling restart does: it is told to stop,
// and ends what it has begun beside its successor.
func (f *fleet) term(slot int) {
	w := f.take(slot)
	if w == nil {
		return
	}
	f.mu.Lock()
	f.termed++
	f.mu.Unlock()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	f.procs.Go(func() { f.await(w) })
	f.start(slot)
}

// take notes that a slot's worker is about to be ended. It is nil if that ended by
// itself and has no successor yet.
func (f *fleet) take(slot int) *worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.slots[slot]
	if w == nil || w.told {
		return nil
	}
	w.told = true
	return w
}

// await sees to it that a worker that was told to stop does.
func (f *fleet) await(w *worker) {
	limit := time.NewTimer(f.patient)
	defer limit.Stop()
	select {
	case <-w.gone:
	case <-limit.C:
		f.t.Errorf("%s: %s has not stopped within %v", f.stack.name, w.name, f.patient)
		_ = w.cmd.Process.Kill()
	}
}

// stop tells all workers to stop and waits until they have.
func (f *fleet) stop() {
	f.mu.Lock()
	f.ending = true
	slots := f.slots
	f.slots = nil
	f.mu.Unlock()
	for _, w := range slots {
		if w != nil { // nil if it could not be started
			_ = w.cmd.Process.Signal(syscall.SIGTERM)
			f.procs.Go(func() { f.await(w) })
		}
	}
	f.procs.Wait()
}

// clear kills what is left of a test that failed.
func (f *fleet) clear() {
	f.mu.Lock()
	f.ending = true
	for _, w := range f.slots {
		if w != nil {
			_ = w.cmd.Process.Kill()
		}
	}
	f.mu.Unlock()
	f.procs.Wait()
}

// ends counts the workers that SIGKILL has ended, and those that stopped because of SIGTERM.
func (f *fleet) ends() (killed, termed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.killed {
		if f.fates[k.name] == sigkilled {
			killed++
		}
	}
	return killed, f.termed
}

// ended counts how the workers ended, but for the ways given.
func (f *fleet) ended(but ...string) map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{}
	for _, fate := range f.fates {
		n[fate]++
	}
	for _, b := range but {
		delete(n, b)
	}
	return n
}

// waitFor returns true when ok does, and false if ctx ends first.
func waitFor(ctx context.Context, ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
