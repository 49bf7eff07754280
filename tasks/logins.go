package tasks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// The pauses after a refused login, of all workers together: a server that counts them locks the account.
const (
	loginPauseMin = 30 * time.Second
	loginPauseMax = 10 * time.Minute
)

// How long a worker that tries to log in keeps the others from it, at most, and how often these
// look whether it is through.
const (
	loginLease = 30 * time.Second
	loginPoll  = 150 * time.Millisecond
)

// loginsKept is how long refusals are remembered of an account that nobody tries any more.
const loginsKept = time.Hour

// loginRecheck is how long a worker waits at most until it asks whether another one was let in.
const loginRecheck = time.Minute

// errLoginPause is why a login is not even tried.
var errLoginPause = errors.New("a login to this account was refused just now, and each further one could lock it")

// logins agrees with the workers of other processes on who logs in to an account, and when. Only
// those take part that have no working login: who is logged in goes on. One of them tries. If it is
// refused, all wait, 30 s at first and twice as long after each further refusal; once one is let in
// the others follow.
//
// Redis has times and counts under a digest of the server's and the user's name, and nothing that is made of
// the password: whoever read it there could try passwords against it without the server. So
// it is not known whose password was refused. A worker whose own password has not been refused
// may have a better one, as after its correction: it need not wait for the whole pause, only for 30 s
// after the last refusal. That is a worker which was started after that refusal, and
// one whose last login has worked. One that has read its password again since the last refusal tries it at once: somebody
// has asked for it.
type logins struct {
	redis redis.UniversalClient
	key   string // "" if there is no login

	mu    sync.Mutex // guards the others
	began string     // refusals of the account when the worker started, or read the password again
	fresh bool       // the password was read again, and has not been tried yet
	count string     // of refusals, when ours was the last
}

// of says which account it is, "" for none.
func (l *logins) of(account string) {
	if account != "" {
		digest := sha256.Sum256([]byte(account))
		l.key = wire.LoginsKey(hex.EncodeToString(digest[:8]))
	}
}

// start notes which refusals were before this worker.
func (l *logins) start(ctx context.Context) {
	if l.key == "" {
		return
	}
	began, err := l.redis.HGet(ctx, l.key, "refusals").Result()
	if errors.Is(err, redis.Nil) {
		began = "0"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began = began
}

// follows notes that a refusal which was counted since this began is of the password before.
func (l *logins) follows(before *logins) {
	before.mu.Lock()
	count := before.count
	before.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fresh && l.key == before.key && count != "" {
		l.began = count
	}
}

// asked returns what is known when a login is asked for.
func (l *logins) asked() (began string, fresh bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began, l.fresh
}

// used notes that the answer was not to wait for another worker.
func (l *logins) used() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh = false
}

// askScript answers how many milliseconds to wait, and whether that is because another worker is
// trying right now. Without a wait the caller is the one who tries.
//
// ARGV: the refusals that the caller knows of, which were before it; "1" if its last login has worked;
// the lease; the shortest pause; how long to remember; "1" if its password was read again and nobody has tried it.
var askScript = redis.NewScript(`
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local v = redis.call("HMGET", KEYS[1], "refusals", "last", "until", "trying", "worked")
local refusals, last, pause = v[1] or "0", tonumber(v[2] or "0"), tonumber(v[3] or "0")
local trying, worked = tonumber(v[4] or "0"), tonumber(v[5] or "0")
local short = tonumber(ARGV[4])
if trying > now then return {trying - now, 1} end
local trusted = ARGV[2] == "1" or ARGV[1] == refusals
if trusted and worked > last and now - worked < short then return {0, 0} end
if trusted then pause = math.min(pause, last + short) end
if ARGV[6] == "1" and ARGV[1] == refusals then pause = 0 end
if pause > now then return {pause - now, 0} end
redis.call("HSET", KEYS[1], "trying", now + ARGV[3])
redis.call("PEXPIRE", KEYS[1], ARGV[5])
return {0, 0}`)

// wait returns how long nobody may try to log in; 0 if this worker may now, and is to report
// how that ended. loggedIn tells whether its last login has worked.
func (l *logins) wait(ctx context.Context, loggedIn bool) (time.Duration, error) {
	flag := func(is bool) string {
		if is {
			return "1"
		}
		return "0"
	}
	for {
		began, fresh := l.asked()
		answer, err := askScript.Run(ctx, l.redis, []string{l.key}, began, flag(loggedIn),
			loginLease.Milliseconds(), loginPauseMin.Milliseconds(), loginsKept.Milliseconds(), flag(fresh)).Int64Slice()
		if err != nil {
			return 0, redisconn.Unavailable(err)
		}
		if pause := time.Duration(answer[0]) * time.Millisecond; answer[1] == 0 {
			l.used()
			return pause, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(loginPoll):
		}
	}
}

// refusedScript returns the pause in milliseconds, and how many refusals there are. ARGV: the shortest and the longest pause, how long to remember.
var refusedScript = redis.NewScript(`
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local inARow = redis.call("HINCRBY", KEYS[1], "inarow", 1)
local pause = math.min(ARGV[1] * 2 ^ math.min(inARow - 1, 20), tonumber(ARGV[2]))
local refusals = redis.call("HINCRBY", KEYS[1], "refusals", 1)
local worked = tonumber(redis.call("HGET", KEYS[1], "worked") or "0")
redis.call("HSET", KEYS[1], "last", math.max(now, worked), "until", now + pause)
redis.call("HDEL", KEYS[1], "trying")
redis.call("PEXPIRE", KEYS[1], ARGV[3])
return {pause, refusals}`)

// wasRefused reports a refused login, and returns how long nobody may try again.
func (l *logins) wasRefused(ctx context.Context) time.Duration {
	answer, err := refusedScript.Run(ctx, l.redis, []string{l.key},
		loginPauseMin.Milliseconds(), loginPauseMax.Milliseconds(), loginsKept.Milliseconds()).Int64Slice()
	if err != nil {
		return loginPauseMin
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count = strconv.FormatInt(answer[1], 10)
	return time.Duration(answer[0]) * time.Millisecond
}

// workedScript lets those go on that wait, and begins the pauses anew. The later of a refusal and a login has the later time, also
// within a millisecond. ARGV: the shortest pause, how long to remember.
var workedScript = redis.NewScript(`
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last = tonumber(redis.call("HGET", KEYS[1], "last") or "0")
redis.call("HSET", KEYS[1], "worked", math.max(now, last + 1), "inarow", 0, "until", last + ARGV[1])
redis.call("HDEL", KEYS[1], "trying")
redis.call("PEXPIRE", KEYS[1], ARGV[2])
return 0`)

// worked reports a login that worked, after a wait.
func (l *logins) worked(ctx context.Context) {
	_ = workedScript.Run(ctx, l.redis, []string{l.key}, loginPauseMin.Milliseconds(), loginsKept.Milliseconds()).Err() // else the lease ends it
}

// ended reports that it did not come to a login, after a wait.
func (l *logins) ended(ctx context.Context) {
	_ = l.redis.HDel(ctx, l.key, "trying").Err()
}

// loginRefused reports whether a server has refused user and password.
func loginRefused(err error) bool {
	var e *mailer.SendError
	return errors.As(err, &e) && e.Step == mailer.StepAuth && e.Code/100 == 5
}
