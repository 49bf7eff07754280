package redisconn

import (
	"errors"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/mailer"
)

// step is where a hand-over fails that Redis does not take: before any mail server is asked.
const step mailer.Step = "redis"

// Unavailable is the error of a Redis that cannot be reached or refuses to write. What
// asynq and go-redis wrap around the cause helps nobody.
func Unavailable(err error) error {
	var network *net.OpError
	var reply redis.Error
	if errors.As(err, &network) {
		err = network
	} else if errors.As(err, &reply) {
		err = reply
	}
	return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: err}
}
