package tasks

import (
	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/internal/redisconn"
)

// Connect returns a client for the Redis at rawURL. It opens no connection yet.
//
//	redis://user:password@host:6379/0     one server
//	rediss://host:6380/0                  the same over TLS
//	unix:///run/redis.sock?db=0           a unix socket
//	redis://host1:6379,host2:6379         a cluster, by some of its nodes
//	redis://host:6379?cluster=true        a cluster, by one of its nodes
//	redis-sentinel://host1:26379,host2:26379/0?master=mymaster
//	rediss-sentinel://...                 the same over TLS, to the sentinels too
//
// Certificates are verified against the system's authorities, or those of the PEM file
// that ?cafile= names; ?certfile= and ?keyfile= name a certificate of our own for a
// server that asks for one. The user and the password are the servers';
// sentinels have their own, ?sentinel_username= and ?sentinel_password=. What else go-redis
// takes in a URL is understood too, such as ?pool_size= or ?read_timeout=.
//
// go-redis logs to stderr each connection that it cannot open; redis.SetLogger changes that for
// the whole program.
func Connect(rawURL string) (redis.UniversalClient, error) { return redisconn.Connect(rawURL) }
