package asynqbatch

// ListKeys are the keys of the record of a task and of the lists that it may be in, for scripts with TakeOutLua.
func ListKeys(queue, id string) []string {
	list := "asynq:{" + queue + "}:"
	return []string{TaskKey(queue, id), list + "pending", list + "scheduled", list + "retry", list + "active", list + "lease", list + "completed"}
}

// TakeOutLua begins a script whose first keys are ListKeys. takeOut(id, state) takes a task in that state out of
// its list, whoever has it. It compares no owner: a worker that has the task finds it gone, or finds what the script
// leaves in the record's place, before it sends anything.
const TakeOutLua = `
local function takeOut(id, state)
  if state == "pending" then
    redis.call("LREM", KEYS[2], 1, id)
  elseif state == "scheduled" then
    redis.call("ZREM", KEYS[3], id)
  elseif state == "retry" then
    redis.call("ZREM", KEYS[4], id)
  elseif state == "active" then
    redis.call("LREM", KEYS[5], -1, id)
    redis.call("ZREM", KEYS[6], id)
  elseif state == "completed" then
    redis.call("ZREM", KEYS[7], id)
  end
end
`
