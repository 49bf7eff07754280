package harness

import (
	"bufio"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/presence"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/tasks"
)

// Redis is a Redis for one measurement, one server or a cluster of masters.
type Redis struct {
	URL    string
	Client redis.UniversalClient

	servers   []*redis.Client // each server by itself
	inspector *asynq.Inspector
}

// Storage is where a Redis keeps its data.
type Storage redistest.Persistence

// With AppendOnly it keeps them as one in production should: appendonly yes, appendfsync
// everysec. With AppendAlways each write is on the disk before its reply. It does not rewrite its file, because a rewrite would slow down some
// measurements and not others. With MemoryOnly it writes no file.
const (
	AppendOnly   = Storage(redistest.EverySec)
	AppendAlways = Storage(redistest.Always)
	MemoryOnly   = Storage(redistest.Off)
)

func (s Storage) options() redistest.Options {
	if s == MemoryOnly {
		return redistest.Options{}
	}
	return redistest.Options{AppendOnly: redistest.Persistence(s), Config: []string{"auto-aof-rewrite-percentage 0"}}
}

// StartRedis starts one server.
func StartRedis(b *Bench, storage Storage) *Redis {
	s := redistest.Start(b, storage.options())
	return newRedis(b, s.URL(), s)
}

// StartCluster starts a cluster of masters.
func StartCluster(b *Bench, masters int) *Redis {
	c := redistest.StartCluster(b, masters, AppendOnly.options())
	return newRedis(b, c.URL(), c.Masters...)
}

func newRedis(b *Bench, url string, servers ...*redistest.Server) *Redis {
	client, err := tasks.Connect(url)
	b.Check(err)
	b.Cleanup(func() { _ = client.Close() })
	r := &Redis{URL: url, Client: client, inspector: asynq.NewInspectorFromRedisClient(client)}
	for _, s := range servers {
		r.servers = append(r.servers, s.Client(b))
	}
	return r
}

// Usage is what the servers have used since they were started, in sum.
type Usage struct {
	CPU      time.Duration
	Memory   int64 // now
	Network  int64 // bytes, both ways
	Commands int64 // those inside of scripts too
}

// Usage asks each server.
func (r *Redis) Usage(b *Bench) Usage {
	b.Helper()
	var u Usage
	for _, s := range r.servers {
		text, err := s.Info(b.Context()).Result()
		b.Check(err)
		info := parseInfo(text)
		u.CPU += time.Duration((info["used_cpu_user"] + info["used_cpu_sys"]) * float64(time.Second))
		u.Memory += int64(info["used_memory"])
		u.Commands += int64(info["total_commands_processed"])
		u.Network += int64(info["total_net_input_bytes"] + info["total_net_output_bytes"])
	}
	return u
}

// parseInfo reads the numbers of an INFO reply.
func parseInfo(text string) map[string]float64 {
	info := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			info[name] = n
		}
	}
	return info
}

// Hold pauses all queues that are not empty, so that workers can start and wait. release
// lets them begin.
func (r *Redis) Hold(b *Bench) (release func()) {
	b.Helper()
	names, err := r.inspector.Queues()
	b.Check(err)
	for _, name := range names {
		b.Check(r.inspector.PauseQueue(name))
	}
	return func() {
		for _, name := range names {
			b.Check(r.inspector.UnpauseQueue(name))
		}
	}
}

// Left is how many tasks wait or are being worked on.
func (r *Redis) Left(ctx context.Context) (int, error) {
	names, err := r.inspector.Queues()
	if err != nil {
		return 0, err
	}
	pipe := r.Client.Pipeline()
	var lengths []*redis.IntCmd
	for _, name := range names {
		for _, list := range []string{"pending", "active"} {
			lengths = append(lengths, pipe.LLen(ctx, "asynq:{"+name+"}:"+list))
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, err
	}
	left := 0
	for _, n := range lengths {
		left += int(n.Val())
	}
	return left, nil
}

// AwaitWorker waits until the process is there: a worker of ours says so in Redis, and starts its asynq servers when there
// is mail; of another one asynq lists an active server.
func (r *Redis) AwaitWorker(b *Bench, p *Process) {
	b.Helper()
	p.await(b, func() bool {
		workers, err := presence.Read(b.Context(), r.Client)
		b.Check(err)
		if slices.ContainsFunc(workers, func(w presence.Worker) bool { return w.PID == p.PID() }) {
			return true
		}
		servers, err := r.inspector.Servers()
		b.Check(err)
		for _, s := range servers {
			if s.PID == p.PID() && s.Status == "active" {
				return true
			}
		}
		return false
	})
}
