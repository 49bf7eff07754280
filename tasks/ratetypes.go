package tasks

import "github.com/mailpouch/mailpouch/internal/rate"

// The rates of a mailer's relay, which all workers on a Redis keep to together. What they may be is in internal/rate, how they
// agree in internal/ratelimit.
type (
	// Rates are all limits of a mailer's relay. The zero value is none.
	Rates = rate.Rates
	// RateLimit is how many messages, or recipients, there may be in a period.
	RateLimit = rate.Limit
	// RateLimits hold all at once.
	RateLimits = rate.Limits
	// RateDomain is a limit for the messages to one domain.
	RateDomain = rate.Domain
	// RateDomains are the limits of domains.
	RateDomains = rate.Domains
	// RateError is the error of something that is no rate.
	RateError = rate.Error
)
