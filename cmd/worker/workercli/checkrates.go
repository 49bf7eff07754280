package workercli

import (
	"context"
	"fmt"
	"strings"

	"github.com/mailpouch/mailpouch/internal/ratelimit"
	"github.com/mailpouch/mailpouch/internal/redisconn"
	"github.com/mailpouch/mailpouch/settings"
)

// rateWarnings says which mailers send slower than their rate allows, since their relays want less, and which rates are never
// reached.
func rateWarnings(ctx context.Context, s settings.Settings) (warnings []string) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	client, err := redisconn.ConnectStatus(s.Queue.RedisURL.Reveal())
	if err != nil {
		return nil // that was said before
	}
	defer func() { _ = client.Close() }()
	for _, name := range append([]string{""}, s.Mailers()...) {
		named, err := s.Named(name)
		if err != nil || len(named.Rates.Messages)+len(named.Rates.Recipients) == 0 {
			continue
		}
		if factor, err := ratelimit.Lowered(ctx, client, name); err == nil && factor < 1 {
			warnings = append(warnings, fmt.Sprintf("%s: the relay has said that it gets too much: workers send at %.0f %% of the rate for now",
				named.Variable("EMAIL_RATE"), factor*100))
		}
		if slow := spread(named.Rates.Messages); slow != "" {
			warnings = append(warnings, fmt.Sprintf("%s: %s is spread evenly, so that the other rates are never reached: leave its burst out for a quota",
				named.Variable("EMAIL_RATE"), slow))
		}
	}
	return warnings
}

// spread are the limits of an hour or more that are spread evenly with a small burst, though there is one by the second.
func spread(limits settings.Limits) string {
	var slow []string
	fast := 0.0
	for _, l := range limits {
		fast = max(fast, l.PerSecond())
	}
	for _, l := range limits {
		if l.Burst > 0 && l.Per.Hours() >= 1 && l.PerSecond() < fast/2 && float64(l.Burst) < 60*fast {
			slow = append(slow, l.String())
		}
	}
	return strings.Join(slow, ", ")
}
