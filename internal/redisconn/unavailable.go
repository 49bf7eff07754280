package redisconn

import (
	"errors"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/mailpouch/mailpouch/mailer"
)

// step is where a hand-over fails that Redis does not take: before any mail server is asked.
const step mailer.Step = "redis"

// Unavailable is the error of a Redis that cannot be reached or refuses to write.
func Unavailable(err error) error {
	return &mailer.SendError{Class: mailer.Unavailable, Step: step, Err: cause(err)}
}

// cause is an error without what asynq and go-redis wrap around it, which helps nobody.
func cause(err error) error {
	var network *net.OpError
	var reply redis.Error
	var known *mailer.SendError
	var other *TLSError
	switch {
	case errors.As(err, &other):
		return other
	case errors.As(err, &network):
		return network
	case errors.As(err, &reply):
		return reply
	case errors.As(err, &known) && known.Step == step:
		return known.Err
	}
	return err
}
