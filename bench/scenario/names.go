package scenario

import "github.com/mailpouch/mailpouch/bench/report"

// The contenders that are named in several places.
const (
	nameWorker  = "worker run"
	nameMore    = "worker run, 20 connections"
	nameChunked = "worker run, chunked"
	nameEmpty   = "asynq, empty handler (limit)"
	nameNetSMTP = "asynq + net/smtp, kept open"
	nameGoMail  = "asynq + go-mail, kept open"
	nameDial    = "asynq + net/smtp, a connection a mail"
	nameDirect  = "our SMTP client, no queue (limit)"
	nameSource  = "smtp-source, no queue (limit)"

	nameBulk        = "bulk mail (SendMessages of 1,000)"
	nameBulkMore    = "bulk mail, 20 connections"
	nameBulkChunked = "bulk mail, chunked"

	nameBaseline  = "asynq + net/smtp, its defaults"
	nameUnderBulk = "worker run, bulk one task a mail"
	nameBig       = "worker run, 10 MB each"
)

// How the contenders are set up.
const (
	peerConnections  = 20 // of the usual handlers
	emptyConcurrency = 50 // of the empty one: where it is fastest
	ownConnections   = 4  // the default of EMAIL_CONNECTIONS

	manyConnections = "EMAIL_CONNECTIONS=20" // as many as the usual handlers have
	chunked         = "EMAIL_CHUNKING=auto"  // several messages on their way over each connection
)

// What several scenarios measure.
const (
	rate    = "rate"
	worker  = "worker_us"
	server  = "redis_us"
	memory  = "rss_mb"
	waiting = "redis_bytes"
	network = "redis_net_bytes"
)

func metrics(keys ...string) []report.Metric {
	titles := map[string]string{
		rate: "mails/s", worker: "worker, us a mail", server: "Redis, us a mail", memory: "worker, MB at most",
		waiting: "in Redis, bytes a waiting mail", network: "to and from Redis, bytes a mail",
		"redis_mb": "in Redis, MB", "mb_s": "MB/s", "p50_ms": "ms, half of the mails", "p99_ms": "ms, 99 % of the mails",
		"producer_us": "producer, us a mail",
	}
	all := make([]report.Metric, 0, len(keys))
	for _, key := range keys {
		all = append(all, report.Metric{Key: key, Title: titles[key]})
	}
	return all
}
