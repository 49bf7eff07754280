package tasks

import (
	"context"

	"github.com/hibiken/asynq"
)

// server is one of a lane's asynq servers.
type server struct {
	*asynq.Server
	places *places
	taker  *taker
}

func newServer(w *Worker, c serverConfig) *server {
	p := newPlaces(c.Concurrency)
	t := newTaker(w.redis, p, c.eager)
	return &server{asynq.NewServerFromRedisClient(newBroker(w.redis, w.ends, t, w.alone), c.Config), p, t}
}

// serverConfig is the configuration of a server.
type serverConfig struct {
	asynq.Config
	eager func() bool // looks for tasks again soon after there were none
}

func always() bool { return true }

// Stop makes the server take no more tasks.
func (s *server) Stop() {
	s.Server.Stop()
	s.taker.close(context.Background())
}
