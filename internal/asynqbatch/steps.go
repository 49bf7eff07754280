package asynqbatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/batcher"
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
// The function gets a table and its arguments. The table has the task's id and key; there, whether its record is there;
// ours, whether it is active and this process fetched it last; and ends, whether nothing is to be kept of it. It may call
// renew(task), after which its lease lasts for 20 seconds at least, and finish(task), which ends it as asynq does and
// reports whether it was active. It returns a text.
type Step struct {
	Name string
	Key  string // of the task
	Args []string
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
	id     string
	claim  claim
	done   chan struct{}
	answer Answer
}

func newSteps(b *base) *steps {
	return &steps{base: b, script: stepsScript(b.cfg.Steps), queues: map[string]*batcher.Batcher[*step]{}}
}

// renewedFor is what is left of a lease after renew, at least.
const renewedFor = 20 * time.Second

// What stepsScript answers of a task, beside the step's text.
const (
	stepGone    = iota // it has no record
	stepOurs           // it is ours
	stepRenewed        // and for renewedFor, at least
	stepEnded          // it was ours, and has ended
	stepOther          // it is not ours
)

// stepsScript does steps to tasks of one queue: KEYS[5] and what follows are their records, before these are the list of
// active tasks, the leases, and asynq's two numbers of tasks. Each has in ARGV its name, its ID, its owner, 1 if
// nothing is to be kept of it, how many arguments follow, and these. It answers a number and a text for each.
func stepsScript(functions map[string]string) *redis.Script {
	var lua strings.Builder
	lua.WriteString(`
local time, at, count, answers = tonumber(redis.call("TIME")[1]), 4, 0, {}
local function renew(task)
  local ends = redis.call("ZSCORE", KEYS[2], task.id)
  if not ends or tonumber(ends) < time + 20 then redis.call("ZADD", KEYS[2], time + 30, task.id) end
  task.answer = 2
end
local function finish(task)
  if redis.call("LREM", KEYS[1], -1, task.id) == 0 then return false end
  redis.call("ZREM", KEYS[2], task.id)
  redis.call("DEL", task.key)
  count, task.answer, task.ours, task.there = count + 1, 3, false, false
  return true
end
local steps = {}
steps["` + stepEnd + `"] = function(task) if task.ours and finish(task) then return "ended" end return "" end
`)
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		fmt.Fprintf(&lua, "steps[%q] = function(task, args)%s\nend\n", name, functions[name])
	}
	lua.WriteString(`
local last
for i = 5, #KEYS do
  local key, owner, n = KEYS[i], ARGV[at + 2], tonumber(ARGV[at + 4])
  local task = last
  if not last or last.key ~= key or last.owner ~= owner then
    local state, has = unpack(redis.call("HMGET", key, "state", ARGV[3]))
    task = {id = ARGV[at + 1], key = key, owner = owner, there = state ~= false}
    task.ours = state == "active" and (has or "") == owner
    task.ends = ARGV[at + 3] == "1"
    last = task
  end
  task.answer = task.ours and 1 or task.there and 4 or 0
  local args = {}
  for j = 1, n do args[j] = ARGV[at + 4 + j] end
  local text = steps[ARGV[at]](task, args)
  answers[2 * (i - 4) - 1], answers[2 * (i - 4)] = tostring(task.answer), text
  at = at + 5 + n
end
if count > 0 then
  if redis.call("INCRBY", KEYS[3], count) == count then redis.call("EXPIREAT", KEYS[3], ARGV[1]) end
  if tonumber(redis.call("GET", KEYS[4]) or 0) + count >= tonumber(ARGV[2]) then
    redis.call("SET", KEYS[4], count)
  else
    redis.call("INCRBY", KEYS[4], count)
  end
end
return answers`)
	return redis.NewScript(lua.String())
}

// do does steps and waits for their answers, or until ctx ends.
func (s *steps) do(ctx context.Context, wanted []Step) []Answer {
	these := make([]*step, len(wanted))
	queues := make(map[string][]*step, 1)
	for i, w := range wanted {
		prefix, id := queueOf(w.Key)
		t, _ := s.claims.get(w.Key)
		these[i] = &step{Step: w, id: id, claim: t, done: make(chan struct{})}
		queues[prefix] = append(queues[prefix], these[i])
	}
	for prefix, some := range queues {
		if b := s.queue(prefix); len(queues) > 1 || ctx.Done() != nil {
			go b.Add(some...) // it may do them, and others, before it returns
		} else {
			b.Add(some...)
		}
	}
	answers := make([]Answer, len(wanted))
	for i, t := range these {
		select {
		case <-t.done:
			answers[i] = t.answer
		case <-ctx.Done():
			answers[i].Err = ctx.Err()
		}
	}
	return answers
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
			args += 6 + len(these[n].Args)
			n++
		}
		s.runSome(prefix, these[:n])
		these = these[n:]
	}
}

// errNotActive is what asynq's scripts say of a task that is in no list of active tasks.
var errNotActive = errors.New("NOT FOUND")

// mostTasks is the greatest number that asynq counts to.
const mostTasks = int64(math.MaxInt64)

var errNoAnswer = errors.New("asynqbatch: Redis has not answered as its script does")

func (s *steps) runSome(prefix string, these []*step) {
	now, asked := time.Now(), s.claims.clock()
	keys := append(make([]string, 0, 4+len(these)),
		prefix+"active", prefix+"lease", prefix+"processed:"+now.UTC().Format(time.DateOnly), prefix+"processed")
	args := append(make([]any, 0, 3+8*len(these)), now.Add(statsFor).Unix(), mostTasks, s.cfg.OwnerField)
	for _, t := range these {
		ends := 0
		if t.claim.ends {
			ends = 1
		}
		keys = append(keys, t.Key)
		args = append(args, t.Name, t.id, t.claim.owner, ends, len(t.Args))
		for _, a := range t.Args {
			args = append(args, a)
		}
	}
	answers, err := s.script.Run(context.Background(), s.redis, keys, args...).StringSlice()
	if err == nil && len(answers) != 2*len(these) {
		err = errNoAnswer
	}
	for i, t := range these {
		if err != nil {
			t.answer.Err = err
		} else {
			s.answered(t, answers[2*i], asked)
			t.answer.Text = answers[2*i+1]
		}
		close(t.done)
	}
}

// answered notes what Redis says of a task whose step it was asked for at that time.
func (s *steps) answered(t *step, answer string, asked time.Duration) {
	switch answer {
	case fmt.Sprint(stepRenewed):
		s.claims.confirmed(t.Key, t.claim.owner, asked+renewedFor)
	case fmt.Sprint(stepOther):
		s.claims.lost(t.Key, t.claim.owner)
	case fmt.Sprint(stepEnded):
		s.claims.settle(t.Key, t.claim.owner)
	}
}

// asynqEnds ends a task for asynq, together with others.
func (s *steps) asynqEnds(ctx context.Context, key string) error {
	owner, told := s.claims.asynqEnds(key)
	if told {
		return nil
	}
	a := s.do(ctx, []Step{{Name: stepEnd, Key: key}})[0]
	switch {
	case a.Err != nil:
		return a.Err
	case a.Text != "ended":
		return errNotActive
	}
	s.claims.ended(key, owner)
	return nil
}
