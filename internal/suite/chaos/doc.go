// Package chaos proves the promise of the queue by breaking things: workers are
// killed, stand still, have wrong clocks or cannot reach the mail server, Redis is restarted and silent, the mail server
// refuses, hangs up and goes away, all from one seed, and in the end every message is counted. Half of them are
// handed over in bulk, which travel as tasks of many.
//
// Programs hand mail in from outside, by SMTP and HTTP, while what takes it in is killed too, and what events and webhooks tell of each
// message is held against what has happened.
//
// The first is done to the asynq worker that people usually write, for comparison. It is
// all in tests: a short one for every day, and with -chaos.full a long one.
package chaos
