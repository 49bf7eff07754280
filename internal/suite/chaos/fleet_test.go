package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fleet runs a number of processes, and replaces each that ends. They are workers, if nothing else is said.
type fleet struct {
	t       *testing.T
	stack   *stack
	logs    string // directory of the workers' logs
	patient time.Duration
	command func(setup) *exec.Cmd
	initial string // letter of their names
	between func() // if not nil, a successor begins when the process before it is gone, after this

	mu      sync.Mutex
	clocks  []time.Duration // of the workers, by their slots
	usable  int             // the workers in slots from here on cannot reach the relay
	slots   []*worker
	started int
	fates   map[string]string // how each worker ended, by its name
	crashed int               // workers that ended by themselves
	killed  []killed
	stalled []*stalled
	without []span // when there was no Redis
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

// stalled is a worker that stood still.
type stalled struct {
	name     string
	from, to time.Time // to is zero as long as it does
}

// span is a time from one moment to another, which is zero as long as it is not over.
type span struct{ from, to time.Time }

// sigkilled is the fate of a worker that was killed.
const sigkilled = "signal: killed"

// startFleet starts the workers of a plan. A worker may take as long as patient to stop.
func startFleet(t *testing.T, s *stack, p plan, logs string, patient time.Duration) *fleet {
	t.Helper()
	f := &fleet{
		t: t, stack: s, logs: logs, patient: patient, clocks: p.clocks, usable: p.workers, between: p.between,
		slots: make([]*worker, p.workers+p.stranded), fates: map[string]string{}, initial: "w",
		command: func(w setup) *exec.Cmd { return s.command(w) },
	}
	return f.begin()
}

// begin starts a process for each slot.
func (f *fleet) begin() *fleet {
	f.t.Cleanup(f.clear)
	for slot := range f.slots {
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
	w := &worker{name: fmt.Sprintf("%s%d.example.com", f.initial, f.started), slot: slot, gone: make(chan struct{})}
	setup := setup{name: w.name, slot: slot, stranded: slot >= f.usable}
	if slot < len(f.clocks) {
		setup.clock = f.clocks[slot]
	}
	w.cmd = f.command(setup)
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
	f.replace(w)
}

// replace starts the successor of a process that was told to end.
func (f *fleet) replace(w *worker) {
	if f.between == nil {
		f.start(w.slot)
		return
	}
	f.procs.Go(func() {
		<-w.gone
		f.between()
		f.start(w.slot)
	})
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
	f.replace(w)
}

// stall makes the worker of a slot stand still for a while, as a laptop that is closed does, or a virtual machine that is moved.
func (f *fleet) stall(slot int, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.slots[slot]
	if w == nil || w.told || f.stands(w.name) {
		return
	}
	s := &stalled{name: w.name, from: time.Now()}
	if err := pause(w.cmd.Process); err != nil {
		return // it has just ended
	}
	f.stalled = append(f.stalled, s)
	f.procs.Go(func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-w.gone: // killed meanwhile
		case <-timer.C:
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		s.to = time.Now()
		_ = resume(w.cmd.Process)
	})
}

// redisGone notes that there is no Redis from now on, and redisBack that there is one again.
func (f *fleet) redisGone() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.without = append(f.without, span{from: time.Now()})
}

func (f *fleet) redisBack() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.without); n > 0 && f.without[n-1].to.IsZero() {
		f.without[n-1].to = time.Now()
	}
}

// trouble is what happened to workers that may excuse a second copy.
type trouble struct {
	killed  map[string]time.Time // when, by their names
	stalled []stalled
	without []span // when there was no Redis
}

// unwritten is for how long after Redis is back a worker may not have written what it could not write before, on a slow machine.
const unwritten = 2 * time.Second

// unsaid reports whether the copy is one of those that a worker could not report, because it was killed: one of the last over a
// connection that was open then, or had been when Redis went away, if Redis was not back before.
func (of trouble) unsaid(c keptCopy, window int) bool {
	at, ok := of.killed[c.line.worker]
	return ok && (c.lastAt(at, window) || slices.ContainsFunc(of.without, func(s span) bool {
		return at.After(s.from) && (s.to.IsZero() || at.Before(s.to.Add(unwritten))) && c.lastAt(s.from, window)
	}))
}

// trouble is to be called when the workers have ended.
func (f *fleet) trouble() trouble {
	f.mu.Lock()
	defer f.mu.Unlock()
	of := trouble{killed: map[string]time.Time{}}
	for _, k := range f.killed {
		of.killed[k.name] = k.at
	}
	for _, s := range f.stalled {
		of.stalled = append(of.stalled, *s)
	}
	of.without = slices.Clone(f.without)
	return of
}

func (of trouble) stopped(c keptCopy, window int) bool {
	return slices.ContainsFunc(of.stalled, func(s stalled) bool { return s.name == c.line.worker && c.stopped(s, window) })
}

func (of trouble) resumed(c keptCopy, window int) bool {
	return slices.ContainsFunc(of.stalled, func(s stalled) bool { return s.name == c.line.worker && c.resumed(s, window) })
}

// stands reports whether a worker stands still. f.mu is held.
func (f *fleet) stands(name string) bool {
	return slices.ContainsFunc(f.stalled, func(s *stalled) bool { return s.name == name && s.to.IsZero() })
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

// ends counts the workers that SIGKILL has ended, those that stopped because of SIGTERM, and those that stood still.
func (f *fleet) ends() (killed, termed, stalled int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range f.killed {
		if f.fates[k.name] == sigkilled {
			killed++
		}
	}
	return killed, f.termed, len(f.stalled)
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
