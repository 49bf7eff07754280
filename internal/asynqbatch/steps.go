package asynqbatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/batcher"
	"github.com/mailpouch/mailpouch/internal/events"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/wire"
)

// Step is one thing to do to the record of a task: a function of Lua that Config.Steps has under that name. What is
// to be done at the same time goes in one script for each queue, in the order in which it was asked for:
//
//	sender 1    accepted a, mark b --+
//	sender 2    accepted c, mark d --+-- one script: accepted a, mark b, accepted c, mark d, end e
//	asynq       end e ---------------+
//
// So the mark of a sender's next message costs no round trip of its own.
//
// The function gets a table with the task's id and key, and its arguments. It may call
//
//	look(task, field, ...)  returns these fields of the record, in a table from 3 on, and sets task.there, whether the
//	                        record is there, and task.ours, whether the task is active and this process fetched it last
//	renew(task)             after look: its lease lasts for 20 seconds from now, at least
//	deleted(task)           after look: reports whether its record is gone, and Redis knows still that it was fetched: then
//	                        somebody has deleted it
//	halts, paused           see luaPaused
//	finish(task)            after look: ends the task as asynq does, at the end of the script with all others, and reports
//	                        whether it was active. Only if task.ends: otherwise asynq keeps something of it
//	keep(task)              gives the history the step's record, if there is one
//	tell(task)              writes the step's events, if there are any. They are in task.events
//
// It returns a text.
type Step struct {
	Name string // letters and digits
	Key  string // of the task
	Args []string
	Notes
}

// Answer is what came of a Step. After an error it may have been done all the same.
type Answer struct {
	Text string
	Err  error
}

// stepEnd is the step that ends a task that is ours, if asynq says so. It answers "ended" or nothing.
const stepEnd = "end"

// steps gathers what is to be done.
type steps struct {
	*base
	script *redis.Script

	mu     sync.Mutex
	queues map[string]*batcher.Batcher[*step] // by what the keys of a queue begin with
}

// step is a Step under way.
type step struct {
	Step
	claim  claim
	answer *Answer
	call   *call
}

// call is one call of do.
type call struct {
	left atomic.Int64  // steps
	done chan struct{} // closed when there are none
}

func newSteps(b *base) *steps {
	return &steps{base: b, script: stepsScript(b.cfg.Steps), queues: map[string]*batcher.Batcher[*step]{}}
}

// renewedFor is what is left of a lease after renew, at least.
const renewedFor = 20 * time.Second

// What stepsScript says of a task, in the first byte of its answer.
const (
	stepGone    = '0' + iota // it has no record
	stepOurs                 // it is ours
	stepRenewed              // and for renewedFor, at least
	stepEnded                // it was ours, and has ended
	stepOther                // it is not ours
)

// What stepsScript is told of a task.
const (
	flagEnds   = 1
	flagSoon   = 2
	flagRecord = 4
	flagEvents = 8
	flagLate   = 16
)

// stepsScript does steps to tasks of one queue. KEYS are the list of active tasks, the leases, asynq's two numbers of
// tasks, and the two keys of luaPaused. Each step has in ARGV a header: its name, the sum of what holds of 1 (nothing is to be kept of the task), 2 (its lease may
// be over soon), 4 (behind the arguments that are counted there is a record for the history), 8 (and behind that there are events) and 16 (Notes.Late), how many arguments
// follow, the owner, and the ID. What Redis has to read costs as much as what it has to do, so that is one argument. It answers a byte and a text for each.
func stepsScript(functions map[string]string) *redis.Script {
	var lua strings.Builder
	lua.WriteString(luaPaused + history.Lua + events.Lua + `
local call, time, answers = redis.call, nil, {}
local records, told, ended, endedKeys, endedIDs = {}, {}, {}, {}, {}
local function keep(task) if task.record then records[#records + 1] = task.record end end
local function tell(task) if task.events then told[#told + 1] = task.events end end
local function look(task, ...)
  local fields = ended[task.id] and {false} or call("HMGET", task.key, "state", ARGV[2], ...)
  task.there = fields[1] ~= false
  task.ours = fields[1] == "active" and (fields[2] or "") == task.owner
  task.answer = task.ours and "1" or task.there and "4" or "0"
  return fields
end
local function renew(task)
  if not task.soon then return end
  time = time or tonumber(call("TIME")[1])
  local ends = call("ZSCORE", KEYS[2], task.id)
  if not ends or tonumber(ends) < time + 20 then call("ZADD", KEYS[2], time + 30, task.id) end
  task.answer = "2"
end
local function deleted(task) return not task.there and not ended[task.id] and call("ZSCORE", KEYS[2], task.id) ~= false end
local function finish(task)
  if call("LREM", KEYS[1], -1, task.id) == 0 then return false end
  local n = #endedKeys + 1
  endedKeys[n], endedIDs[n], ended[task.id], task.answer = task.key, task.id, true, "3"
  return true
end
local steps = {}
local function forget(task)
  call("ZREM", KEYS[2], task.id)
  return call("LREM", KEYS[1], -1, task.id) == 1
end
steps["` + stepEnd + `"] = function(task)
  local has = {}
  if task.late then has = look(task, "` + wire.FieldSent + `", "` + wire.FieldUnrecorded + `") else look(task) end
  if task.ours and finish(task) then
    if not has[3] or has[4] then
      keep(task)
      tell(task)
    end
    return "ended"
  end
  if not task.there and forget(task) then return "ended" end
  return ""
end
`)
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		fmt.Fprintf(&lua, "steps[%q] = function(task, args)%s\nend\n", name, functions[name])
	}
	lua.WriteString(`
local at = 8
while at <= #ARGV do
  local name, flags, n, owner, id = string.match(ARGV[at], "^(%w+) (%d+) (%d+) (%w*) (.*)$")
  local task = {id = id, key = ARGV[3] .. id, owner = owner, ends = flags % 2 == 1, soon = flags % 4 > 1, late = flags % 32 > 15}
  local args = {}
  for j = 1, tonumber(n) do args[j] = ARGV[at + j] end
  if flags % 8 > 3 then
    at = at + 1
    task.record = ARGV[at + #args]
  end
  if flags % 16 > 7 then
    at = at + 1
    task.events = ARGV[at + #args]
  end
  local text = steps[name](task, args)
  answers[#answers + 1] = (task.answer or "4") .. text
  at = at + 1 + #args
end
if #records > 0 then historyKeep(ARGV[4], table.concat(records), time or call("TIME")[1], ARGV[5], ARGV[6]) end
if #told > 0 then eventsAdd(string.sub(KEYS[6], 1, -7) .. "events", table.concat(told), ARGV[7]) end
local count = #endedKeys
if count > 0 then
  call("ZREM", KEYS[2], unpack(endedIDs))
  call("DEL", unpack(endedKeys))
  if call("INCRBY", KEYS[3], count) == count then call("EXPIREAT", KEYS[3], ARGV[1]) end
  if type(redis.pcall("INCRBY", KEYS[4], count)) == "table" then call("SET", KEYS[4], count) end
end
return answers`)
	return redis.NewScript(lua.String())
}

// do does steps and waits for their answers, or until ctx ends.
func (s *steps) do(ctx context.Context, wanted []Step) []Answer {
	if len(wanted) == 0 {
		return nil
	}
	answers, c := make([]Answer, len(wanted)), &call{done: make(chan struct{})}
	c.left.Store(int64(len(wanted)))
	these := make([]step, len(wanted))
	var queues map[string][]*step
	prefix, _ := queueOf(wanted[0].Key)
	some := make([]*step, 0, len(wanted))
	for i, w := range wanted {
		t, _ := s.claims.get(w.Key)
		these[i] = step{Step: w, claim: t, answer: &answers[i], call: c}
		if strings.HasPrefix(w.Key, prefix) {
			some = append(some, &these[i])
			continue
		}
		if queues == nil {
			queues = map[string][]*step{}
		}
		other, _ := queueOf(w.Key)
		queues[other] = append(queues[other], &these[i])
	}
	for other, others := range queues {
		go s.queue(other).Add(others...) // it may do them, and others, before it returns
	}
	if ctx.Done() != nil {
		go s.queue(prefix).Add(some...)
	} else {
		s.queue(prefix).Add(some...)
	}
	select {
	case <-c.done:
		return answers
	case <-ctx.Done():
		failed := make([]Answer, len(wanted)) // the others may come yet
		for i := range failed {
			failed[i].Err = ctx.Err()
		}
		return failed
	}
}

// queue gathers the steps of tasks whose keys begin with prefix.
func (s *steps) queue(prefix string) *batcher.Batcher[*step] {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.queues[prefix]
	if !ok {
		b = batcher.New(func(these []*step) { s.run(prefix, these) })
		s.queues[prefix] = b
	}
	return b
}

// statsFor is how long asynq keeps the numbers of a day.
const statsFor = 90 * 24 * time.Hour

// mostArgs is how many arguments one script has, about: Lua has room for some thousands.
const mostArgs = 4000

// run does steps of one queue, in one round trip unless they are very many.
func (s *steps) run(prefix string, these []*step) {
	for len(these) > 0 {
		n, args := 0, 0
		for n < len(these) && (n == 0 || args < mostArgs) {
			args += 3 + len(these[n].Args)
			n++
		}
		s.runSome(prefix, these[:n])
		these = these[n:]
	}
}

// errNotActive is what asynq's scripts say of a task that is in no list of active tasks.
var errNotActive = errors.New("NOT FOUND")

var errNoAnswer = errors.New("asynqbatch: Redis has not answered as its script does")

func (s *steps) runSome(prefix string, these []*step) {
	now, asked := time.Now(), s.claims.clock()
	queue := nameIn(prefix)
	keys := []string{
		prefix + "active", prefix + "lease", prefix + "processed:" + now.UTC().Format(time.DateOnly), prefix + "processed",
		PausedKey(queue), wire.PausesKey(queue),
	}
	args := append(make([]any, 0, 7+7*len(these)), now.Add(statsFor).Unix(), s.cfg.OwnerField, prefix+"t:", "", 0, 0, s.cfg.Events.Size)
	for _, t := range these {
		_, id := queueOf(t.Key)
		flags := t.claim.flags(asked) + t.flags()
		args = append(args, t.Name+" "+strconv.Itoa(flags)+" "+strconv.Itoa(len(t.Args))+" "+t.claim.owner+" "+id)
		for _, a := range t.Args {
			args = append(args, a)
		}
		if t.Record != "" {
			args = append(args, t.Record)
			args[3], args[4], args[5] = s.cfg.History.Args(queue)
		}
		if t.Events != "" {
			args = append(args, t.Events)
		}
	}
	answers, err := s.script.Run(context.Background(), s.redis, keys, args...).StringSlice()
	if err == nil && (len(answers) != len(these) || slices.Contains(answers, "")) {
		err = errNoAnswer
	}
	for i, t := range these {
		if err != nil {
			t.answer.Err = err
		} else {
			s.answered(t, answers[i][0], asked)
			t.answer.Text = answers[i][1:]
		}
		if t.call.left.Add(-1) == 0 {
			close(t.call.done)
		}
	}
}

// flags are what stepsScript needs to know of the notes.
func (n Notes) flags() int {
	flags := 0
	if n.Record != "" {
		flags += flagRecord
	}
	if n.Events != "" {
		flags += flagEvents
	}
	if n.Late {
		flags += flagLate
	}
	return flags
}

// flags are what stepsScript needs to know of the task at that time.
func (t claim) flags(now time.Duration) int {
	flags := 0
	if t.ends {
		flags += flagEnds
	}
	if t.until < now+renewedFor {
		flags += flagSoon
	}
	return flags
}

// answered notes what Redis says of a task whose step it was asked for at that time.
func (s *steps) answered(t *step, answer byte, asked time.Duration) {
	switch answer {
	case stepRenewed:
		s.claims.confirmed(t.Key, t.claim.owner, asked+renewedFor)
	case stepOther:
		s.claims.lost(t.Key, t.claim.owner)
	case stepEnded:
		s.claims.settle(t.Key, t.claim.owner)
	}
}

// asynqEnds ends a task for asynq, together with others.
func (s *steps) asynqEnds(ctx context.Context, key string) error {
	owner, told := s.claims.asynqEnds(key)
	if told {
		return nil
	}
	a := s.do(ctx, []Step{{Name: stepEnd, Key: key, Notes: s.claims.noted(key)}})[0]
	switch {
	case a.Err != nil:
		return a.Err
	case a.Text != "ended":
		return errNotActive
	}
	s.claims.ended(key, owner)
	return nil
}
