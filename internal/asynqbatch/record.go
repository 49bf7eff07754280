package asynqbatch

// Message is what asynq's record of a task says of it, as far as others than asynq need it.
type Message struct {
	Payload []byte
	LastErr string // the text of the last failure
}

// The numbers of these fields in asynq's protocol buffer of a task.
const (
	fieldPayload = 2
	fieldLastErr = 7
)

// ReadMessage reads the field "msg" of a task's record. What it cannot read is empty.
func ReadMessage(message string) Message {
	var m Message
	for len(message) > 0 {
		tag, n := uvarint(message)
		value, k := uvarint(message[n:])
		if n == 0 || k == 0 {
			return m
		}
		message = message[n+k:]
		if tag&7 != 2 { // a number
			continue
		}
		if value > uint64(len(message)) {
			return m
		}
		switch tag >> 3 {
		case fieldPayload:
			m.Payload = []byte(message[:value])
		case fieldLastErr:
			m.LastErr = message[:value]
		}
		message = message[value:]
	}
	return m
}

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
