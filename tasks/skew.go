package tasks

import (
	"context"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// Leases and due times go by the clock of Redis alone, so a wrong clock here doubles and loses nothing. But retries,
// deadlines and EMAIL_MAX_AGE are reckoned from it, and so is the time of every log line.

const (
	tolerable = 3 * time.Second // that clocks may differ without a word
	skewEvery = time.Minute
)

// watchSkew measures how far this machine's clock is from that of Redis, now and every minute until ctx ends. It warns when the
// two part, and says when they agree again.
func watchSkew(ctx context.Context, client redis.UniversalClient, o observers, log zerolog.Logger) {
	apart, forbidden := false, false
	for {
		ahead, err := skew(ctx, client, time.Now)
		if err != nil && strings.HasPrefix(err.Error(), "NOPERM") && !forbidden {
			forbidden = true
			log.Error().Err(err).Msg("no mail is sent: the user of Redis needs the right to TIME, by which leases go (ACL: +time)")
		}
		if err == nil {
			o.skew(ahead)
			switch was := apart; {
			case ahead.Abs() > tolerable && !was:
				apart = true
				log.Warn().Float64("ahead_seconds", ahead.Seconds()).
					Msg("this machine's clock and that of Redis differ: mail is due by Redis's clock, deadlines by this one; set both by NTP")
			case ahead.Abs() <= tolerable && was:
				apart = false
				log.Info().Msg("this machine's clock and that of Redis agree again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(skewEvery):
		}
	}
}

// skew is how far now is ahead of the clock of Redis. What Redis says is half a round trip old. Of a few answers the
// fastest tells most.
func skew(ctx context.Context, client redis.UniversalClient, now func() time.Time) (ahead time.Duration, err error) {
	const asks = 3
	best := time.Duration(-1)
	for range asks {
		asked := now()
		theirs, err := client.Time(ctx).Result()
		if err != nil {
			return 0, err
		}
		if took := now().Sub(asked); best < 0 || took < best {
			best, ahead = took, asked.Round(0).Add(took/2).Sub(theirs)
		}
	}
	return ahead, nil
}
