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

func newServer(w *Worker, c asynq.Config) *server {
	p := newPlaces(c.Concurrency)
	client := newBroker(w.redis, w.ends, p)
	return &server{asynq.NewServerFromRedisClient(client, c), p, client.taker}
}

// Stop makes the server take no more tasks.
func (s *server) Stop() {
	s.Server.Stop()
	s.taker.close(context.Background())
}
