package history

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// installationKey is a hash: what workers keep, since when, and the key of the installation. Programs that only hand over,
// ask, cancel or replay need no settings of the history for that.
const installationKey = "mailpouch:history"

// The fields of the hash.
const (
	fieldKey   = "key"
	fieldHours = "hours" // for how long records are kept; 0: they are not
	fieldSize  = "size"
	fieldSince = "since" // when a worker began to keep records, in seconds

	fieldClaimed = "claimed" // when a worker has last looked at how much there is
)

// Installation is what workers keep in a Redis. The zero value is one without a history.
type Installation struct {
	Config
	Secret *Secret
	Since  time.Time // when a worker began to keep records
}

// ReadInstallation returns what workers keep in a Redis.
func ReadInstallation(ctx context.Context, client redis.UniversalClient) (Installation, error) {
	fields, err := client.HGetAll(ctx, installationKey).Result()
	if err != nil {
		return Installation{}, redisconn.Unavailable(err)
	}
	var i Installation
	if key := fields[fieldKey]; key != "" {
		i.Secret = newSecret(key)
	}
	hours, _ := strconv.Atoi(fields[fieldHours])
	i.For = time.Duration(hours) * hour
	i.Size, _ = strconv.ParseInt(fields[fieldSize], 10, 64)
	i.Since = seconds(fields[fieldSince])
	return i, nil
}

// Window is what the history reaches back to.
type Window struct {
	For   time.Duration // how long records are kept
	Since time.Time     // what has ended after this is in the history; zero: there is none
}

// window is what the history reaches back to if records of what ended until then have gone.
func (i Installation) window(trimmed time.Time) Window {
	if !i.On() {
		return Window{}
	}
	w := Window{For: i.For, Since: i.Since}
	for _, at := range []time.Time{trimmed, time.Now().Add(-w.For).UTC()} {
		if at.After(w.Since) {
			w.Since = at
		}
	}
	return w
}

func seconds(text string) time.Time {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// installScript writes for how many hours, ARGV[1], and how much, ARGV[2], is kept. It returns the key, which is ARGV[3] if
// there was none, and whether the history was last claimed ARGV[4] seconds ago or earlier, and claims it then. If Redis is full it
// writes nothing, and that is no error, for which the client would try again and again.
var installScript = redis.NewScript(`
local now = tonumber(redis.call("TIME")[1])
if ARGV[1] == "0" then
  redis.pcall("HDEL", KEYS[1], "` + fieldSince + `")
else
  redis.pcall("HSETNX", KEYS[1], "` + fieldSince + `", now)
end
redis.pcall("HSET", KEYS[1], "` + fieldHours + `", ARGV[1], "` + fieldSize + `", ARGV[2])
redis.pcall("HSETNX", KEYS[1], "` + fieldKey + `", ARGV[3])
local key, last = unpack(redis.call("HMGET", KEYS[1], "` + fieldKey + `", "` + fieldClaimed + `"))
last = tonumber(last or 0)
if last <= now and now - last < tonumber(ARGV[4]) then return {key or "", ""} end
redis.pcall("HSET", KEYS[1], "` + fieldClaimed + `", now)
return {key or "", "claimed"}`)

// install writes what a worker keeps, and returns the key of the installation: known, or a new one, if there is none. claimed
// reports whether no worker has claimed the history for so long: then it is the caller's to look at.
func install(ctx context.Context, client redis.UniversalClient, cfg Config, known *Secret, every time.Duration) (secret *Secret, claimed bool, err error) {
	offered, hours := rand.Text(), 0
	if known != nil {
		offered = known.text
	}
	if cfg.On() {
		hours = cfg.hours()
	}
	answer, err := installScript.Run(ctx, client, []string{installationKey}, hours, cfg.Size, offered, int(every/time.Second)).StringSlice()
	if err != nil {
		return nil, false, redisconn.Unavailable(err)
	}
	text, claimed := answer[0], answer[1] != ""
	switch {
	case text == "":
		return nil, claimed, nil
	case known != nil && known.text == text:
		return known, claimed, nil
	}
	return newSecret(text), claimed, nil
}

// writeScript writes the records ARGV[1].
var writeScript = redis.NewScript(Lua + `
historyKeep(KEYS[1], ARGV[1], redis.call("TIME")[1], ARGV[2], ARGV[3])
return 1`)

// Write writes records of a queue beside what ends tasks.
func (i Installation) Write(ctx context.Context, client redis.UniversalClient, queue string, records []byte) error {
	if !i.On() || len(records) == 0 {
		return nil
	}
	key, hours, size := i.Args(queue)
	return writeScript.Run(ctx, client, []string{key}, records, hours, size).Err()
}
