package scenario

import (
	"fmt"

	"github.com/mailpouch/mailpouch/bench/report"
)

// The scenarios whose results are used by others: the goals, README, docs/scale.md. Those
// of Redis without a file end in memoryOnly.
const (
	drainName     = "drain"
	bulkName      = "bulk"
	enqueueName   = "enqueue"
	chunkingName  = "chunking"
	waitingName   = "waiting"
	idleName      = "idle"
	saturatedName = "saturated"
	distanceName  = "distance"
	growthName    = "growth"
	sameName      = "attachment"
	bigName       = "big"
	intakeName    = "intake"
	historyName   = "history"
	memoryOnly    = "-memory"
)

// The keys of contenders. Those of one kind over the default of 4 connections end in 4.
const (
	single      = "single"  // one task a mail
	single4     = "single4" //
	bulk        = "bulk"    // many mails a task
	bulk4       = "bulk4"   //
	chunked4    = "chunked4"
	bulkChunked = "bulk-chunked4"
	growing     = "growing"

	empty   = "empty"   // asynq and a handler that does nothing
	netSMTP = "netsmtp" // asynq and net/smtp
	goMail  = "gomail"  // asynq and go-mail
	bullMQ  = "bullmq"  // BullMQ and Nodemailer

	client  = "client" // our SMTP client alone
	client4 = "client4"
	source  = "source" // smtp-source

	html         = "html"
	htmlBulk     = "html-bulk"
	usualPayload = "usual"
	usualHTML    = "usual-html"

	one          = "one" // a mail a call, from one goroutine
	many         = "many"
	batches      = "batches" // 1,000 mails a call
	manyBatches  = "many-batches"
	asynqOne     = "asynq-one"
	asynqMany    = "asynq-many"
	command      = "command" // enqueue bulk
	commandOne   = "command-one"
	asynqProgram = "asynq-program"

	everySec     = "everysec" // of worker intake
	everySec20   = "everysec20"
	always       = "always"
	always20     = "always20"
	postfixQueue = "postfix"
)

// Names of contenders that stand in several scenarios.
var (
	nameSingle  = fmt.Sprintf("worker run, %d connections", manyConnections)
	nameSingle4 = fmt.Sprintf("worker run, %d connections", fewConnections)
	nameBulk    = fmt.Sprintf("bulk mail, %d connections", manyConnections)
	nameBulk4   = fmt.Sprintf("bulk mail, %d connections", fewConnections)
	nameNetSMTP = fmt.Sprintf("asynq + net/smtp, %d open connections", manyConnections)
	nameGoMail  = fmt.Sprintf("asynq + go-mail, %d open connections", manyConnections)
	nameBullMQ  = fmt.Sprintf("BullMQ + Nodemailer, %d open connections", manyConnections)
	nameEmpty   = "asynq, empty handler: sends nothing"
	nameClient  = fmt.Sprintf("our SMTP client, no queue, %d connections", manyConnections)
	nameClient4 = fmt.Sprintf("our SMTP client, no queue, %d connections", fewConnections)
	nameSource  = fmt.Sprintf("smtp-source, no queue, %d connections", manyConnections)
)

// How the contenders are set up.
const (
	manyConnections  = 20
	fewConnections   = 4  // the default of EMAIL_CONNECTIONS
	emptyConcurrency = 50 // where the empty handler is fastest

	chunking = "EMAIL_CHUNKING=auto" // several messages on their way over each connection
)

// What several scenarios measure.
const (
	rate       = "rate"
	worker     = "worker_us"
	server     = "redis_us"
	mailServer = "sink_us"
	memory     = "rss_mb"
	waiting    = "redis_bytes"
	network    = "redis_net_bytes"
	filled     = "redis_mb"
	producer   = "producer_us"
	intakeTime = "intake_us"
	share      = "share"
	p50        = "p50_ms"
	p99        = "p99_ms"
	commands   = "idle_commands"
)

func metrics(keys ...string) []report.Metric {
	titles := map[string]string{
		rate: "mails/s", worker: "worker, us a mail", server: "Redis, us a mail", mailServer: "mail server, us a mail",
		memory: "worker, MB at most", waiting: "in Redis, bytes a waiting mail", network: "to and from Redis, bytes a mail",
		filled: "in Redis, MB", producer: "producer, us a mail", intakeTime: "intake, us a mail", share: "% of connections / round trip",
		p50: "ms, half of the mails", p99: "ms, 99 % of the mails", commands: "Redis commands a second, idle",
	}
	all := make([]report.Metric, 0, len(keys))
	for _, key := range keys {
		all = append(all, report.Metric{Key: key, Title: titles[key]})
	}
	return all
}
